/** Loading the messages of a channel. */

import type { ErrorBody, ListMessages, Message } from "../protocol/generated.ts";
import type { Host } from "./host.ts";
import { MessageWindow } from "./window.ts";

/** Messages after the one that is asked for, in `loadAround`. */
const NEWER_AROUND = 25;

export class History {
  readonly #host: Host;
  readonly #channelId: string;
  readonly #changed: () => void;
  window = new MessageWindow();
  /** Whether a gap requires the messages to be read again. */
  isTracked = false;
  error: ErrorBody | undefined;
  /** Number of the channel's newest message. */
  newest = 0;
  #loading: Promise<void> | undefined;

  constructor(host: Host, channelId: string, changed: () => void) {
    this.#host = host;
    this.#channelId = channelId;
    this.#changed = changed;
  }

  get isLoading(): boolean {
    return this.#loading !== undefined;
  }

  loadNewest(): Promise<void> {
    return this.#load({}, (items, more) => this.window.page(items, more, true));
  }

  async loadOlder(): Promise<void> {
    if (!this.window.hasOlder) return;
    await this.#load({ before: this.window.first }, (items, more) => {
      if (items.length > 0) this.window.page(items, more, false);
      else this.window.hasOlder = false;
    });
  }

  loadNewer(): Promise<void> {
    return this.#load({ after: this.window.last }, (items, more) => {
      if (items.length > 0) this.window.page(items, this.window.hasOlder, !more);
      else this.window.isFollowing = true;
    });
  }

  async loadAround(number: number): Promise<void> {
    await this.#loading;
    await this.#load({ before: number + NEWER_AROUND + 1 }, (items, more) => {
      this.window.clear();
      this.window.page(items, more, (items.at(-1)?.number ?? 0) >= this.newest);
    });
  }

  /** Reads messages that are missing at the end. */
  fill(): void {
    if (this.window.isFollowing && this.window.last < this.newest && !this.error) {
      void this.loadNewer();
    }
  }

  /** Discards the messages. A page that is being loaded is discarded too. */
  clear(): void {
    this.window = new MessageWindow();
  }

  track(isTracked: boolean): void {
    if (isTracked === this.isTracked) return;
    this.isTracked = isTracked;
    this.#host.command({ type: "track", channelId: this.#channelId, isTracked });
  }

  /** One page is loaded at a time. */
  #load(which: ListMessages, apply: (items: Message[], more: boolean) => void): Promise<void> {
    this.#loading ??= new Promise((resolve) => {
      const { window } = this;
      this.error = undefined;
      this.track(true);
      const params = { channel_id: this.#channelId, ...which };
      this.#host.ask("message.list", params, "retry", ({ result, error }) => {
        this.#loading = undefined;
        this.error = error;
        if (result && window === this.window) apply(result.items, result.more);
        this.#changed();
        // A message may have come before the page that does not have it yet.
        this.fill();
        resolve();
      });
    });
    this.#changed();
    return this.#loading;
  }
}
