/**
 * Replaces the token before it expires.
 *
 * The client does not parse tokens, and its clock may differ from the server's. So when the server
 * warns, the client asks for the server's clock, and replaces the token after a quarter to half of
 * the time left: early enough for a short token, and at different times in clients that were warned
 * together. The server warns at once of a token that is short, so replacing it at once would never
 * end.
 */

import { retryability } from "../policy/errors.ts";
import type { Pong, Refreshed } from "../protocol/generated.ts";
import type { Context, Outcome } from "./io.ts";

/** Minimum delay before asking for another token. */
const MIN_DELAY = 200;

/** Delay before asking the application again, if it had no token while the session lives. */
const TOKEN_RETRY_DELAY = 5000;

type State =
  | { kind: "idle" | "clock_requested" | "token_requested" | "refreshing" }
  /** The application is asked for a token at this instant. */
  | { kind: "due"; at: number }
  /** The token is sent at this instant. */
  | { kind: "send"; at: number; token: string };

export class Renewal {
  #state: State = { kind: "idle" };
  #warnedExpiry = 0;
  /** A new token that the server has not accepted yet. */
  #token: string | undefined;

  /** The server warned. */
  warned(context: Context, expiresAt: number): void {
    this.#warnedExpiry = Math.max(this.#warnedExpiry, expiresAt);
    if (this.#state.kind !== "idle") return;
    this.#state = { kind: "clock_requested" };
    context.request("ping", {}, ({ result }: Outcome<Pong>) => {
      const left = result ? Math.max(expiresAt - result.at, 0) : 0;
      const part = 0.25 + context.random() / 4;
      this.#state = { kind: "due", at: context.now + Math.max(left * part, MIN_DELAY) };
    });
  }

  /** The application has a token, or (undefined) none. Returns whether it was waited for. */
  received(context: Context, token: string | undefined, isFinal: boolean): boolean {
    if (this.#state.kind !== "token_requested") return false;
    if (token !== undefined) {
      this.#state = { kind: "send", at: context.now, token };
    } else {
      // Without a token the session lives until its own expires.
      const at = isFinal ? Infinity : context.now + TOKEN_RETRY_DELAY;
      this.#state = { kind: "due", at };
    }
    return true;
  }

  /**
   * Takes the next step that is due. `accepted` gets the token that serves the next session, or
   * undefined while it would expire too soon.
   */
  advance(context: Context, ask: () => void, accepted: (token: string | undefined) => void): void {
    const state = this.#state;
    if (state.kind === "due" && state.at <= context.now) {
      this.#state = { kind: "token_requested" };
      ask();
    } else if (state.kind === "send" && state.at <= context.now) {
      this.#state = { kind: "refreshing" };
      const { token } = state;
      this.#token = token;
      context.request("token.refresh", { token }, ({ result, error }: Outcome<Refreshed>) => {
        this.#token = undefined;
        this.#state = { kind: "idle" };
        if (result) {
          // The server warns once per expiry, and its warning may overtake the reply.
          if (result.expires_at <= this.#warnedExpiry) {
            accepted(undefined);
            this.warned(context, result.expires_at);
          } else {
            accepted(token);
          }
        } else if (["rate_limited", "temporary"].includes(retryability(error))) {
          const at = context.now + Math.max(error.retry_after_ms ?? 0, 1000);
          this.#state = { kind: "send", at, token };
        }
        // Else the session ends with the old token. The client then asks for another one.
      });
    }
  }

  /** A new token that was not accepted yet serves the next session. */
  get unsent(): string | undefined {
    return this.#state.kind === "send" ? this.#state.token : this.#token;
  }

  get due(): number {
    const state = this.#state;
    return state.kind === "due" || state.kind === "send" ? state.at : 0;
  }
}
