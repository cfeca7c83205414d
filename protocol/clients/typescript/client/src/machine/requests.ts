/** Requests in flight. */

import { noReply } from "../policy/errors.ts";
import type { ReplyFrame, RequestFrame } from "../protocol/codec.ts";
import type { Outcome } from "./io.ts";

type Done = (outcome: Outcome<never>) => void;

/** Requests in flight, oldest first. */
export class Requests {
  #lastId = 0;
  #pending = new Map<number, { at: number; done: Done }>();
  /** No requests before this instant, since the server limited their rate. */
  pausedUntil = 0;

  /** Returns the frame of a new request. */
  create(now: number, method: string, params: object, done: Done): RequestFrame {
    this.#lastId = (this.#lastId % 0xffff_ffff) + 1;
    this.#pending.set(this.#lastId, { at: now, done });
    return { id: this.#lastId, method, params };
  }

  /** Ends the request of a reply. A reply to a request that timed out is ignored. */
  reply(frame: ReplyFrame): void {
    const pending = this.#pending.get(frame.id);
    this.#pending.delete(frame.id);
    pending?.done(frame.error ? { error: frame.error } : { result: (frame.result ?? {}) as never });
  }

  /** The instant of the oldest request. */
  get oldest(): number | undefined {
    return this.#pending.values().next().value?.at;
  }

  /** Gives up the oldest request. */
  giveUpOldest(): void {
    const [id, pending] = this.#pending.entries().next().value ?? [];
    if (id !== undefined) {
      this.#pending.delete(id);
      pending?.done({ error: noReply });
    }
  }

  /** Gives all requests their full time again, after the process was asleep. */
  restart(now: number): void {
    for (const pending of this.#pending.values()) {
      pending.at = now;
    }
  }

  /** The server asks for fewer requests. */
  pause(now: number, hint: number | undefined, random: number): void {
    this.pausedUntil = Math.max(this.pausedUntil, now + (hint ?? 500) * (1 + random));
  }

  /** The session ended: nothing is in flight any more. */
  disconnected(): void {
    this.#pending.clear();
    this.pausedUntil = 0;
  }
}
