/** The connection as the state uses it: its own, or one that tabs share. */

import type { Command, Resume, Update } from "../machine/io.ts";

export interface Link {
  /** Starts. `listener` gets the updates in order, in batches. */
  start(resume: Resume, listener: (updates: Update[]) => void): void;
  command(command: Command): void;
  /** The network or the page is back. */
  wake(): void;
}
