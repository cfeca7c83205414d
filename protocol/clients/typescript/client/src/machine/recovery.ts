/** The reads that remain after a gap, page by page. */

import type { ErrorBody, MessagePage } from "../protocol/generated.ts";
import { type Call, callOf, type Context } from "./io.ts";
import type { Job, JobProgress } from "./jobs.ts";

/** Pages of changes after which the newest messages are read instead: the rest is old history. */
const MAX_CHANGE_PAGES = 10;

/** Reads a channel after a gap: the newest messages if the history was discarded, else changes. */
export class ChannelRecovery implements Job {
  readonly lane: string;
  readonly #context: Context;
  readonly #channelId: string;
  /** The messages that changed after this `seq`, or undefined for the newest page. */
  #changedAfter: number | undefined;
  /** Items of the newest page, or undefined for as many as a page has. */
  readonly #limit: number | undefined;
  #pages = 0;
  readonly isReady: () => boolean;
  readonly #tooMuch: () => void;
  readonly #ended: (error?: ErrorBody) => void;

  constructor(
    context: Context,
    channelId: string,
    which: { lane: string; changedAfter?: number | undefined; limit?: number | undefined },
    calls: { isReady(): boolean; tooMuch(): void; ended(error?: ErrorBody): void },
  ) {
    this.#context = context;
    this.#channelId = channelId;
    this.lane = which.lane;
    this.#changedAfter = which.changedAfter;
    this.#limit = which.limit;
    this.isReady = calls.isReady;
    this.#tooMuch = calls.tooMuch;
    this.#ended = calls.ended;
  }

  /** The earliest `seq` after which both this one and a new recovery read. */
  earliest(changedAfter: number): number | undefined {
    return this.#changedAfter === undefined
      ? undefined
      : Math.min(this.#changedAfter, changedAfter);
  }

  request(): Call {
    const after = this.#changedAfter;
    const limit = this.#limit ?? (after === undefined ? undefined : this.#context.page);
    return callOf("message.list", { channel_id: this.#channelId, changed_after: after, limit });
  }

  done({ items, more }: MessagePage): JobProgress {
    const after = this.#changedAfter;
    const channelId = this.#channelId;
    const newest = after === undefined ? { newest: { more } } : {};
    this.#context.emit({ type: "messages", channelId, items, ...newest });
    const last = items.at(-1);
    if (after !== undefined && more && last && last.seq > after) {
      this.#pages += 1;
      if (this.#pages >= MAX_CHANGE_PAGES) {
        this.#changedAfter = undefined;
        this.#tooMuch();
      } else {
        this.#changedAfter = last.seq;
      }
      return "more";
    }
    this.#ended();
    return "done";
  }

  failed(error: ErrorBody): void {
    this.#ended(error);
  }
}
