/** The client as the parts of the state use it. */

import type { CallMode, Command, Outcome } from "../machine/io.ts";
import type { Methods } from "../protocol/generated.ts";

export interface Host {
  /** Id of the user, once it is known. */
  readonly userId: string | undefined;
  command(command: Command): void;
  /** Sends a request. `done` is called before any later event is applied. */
  ask<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    mode: CallMode,
    done: (outcome: Outcome<Methods[M]["result"]>) => void,
  ): void;
  /** Throws a `ChaosError`. */
  call<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    mode?: CallMode,
  ): Promise<Methods[M]["result"]>;
}
