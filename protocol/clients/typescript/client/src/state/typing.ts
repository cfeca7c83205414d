/** Typing in a channel: who types, and sending that the user does. */

import { Cell } from "./cell.ts";
import type { Host } from "./host.ts";

/** Time in milliseconds after which another user's typing expires. */
const EXPIRY_MS = 6000;

/** Interval in milliseconds at which the user's typing is sent again. */
const REPEAT_MS = 3000;

export class Typing {
  readonly #host: Host;
  readonly #channelId: string;
  #timers = new Map<string, ReturnType<typeof setTimeout>>();
  #toldAt = -Infinity;
  /** Ids of the others who type. */
  readonly users: Cell<string[]>;

  constructor(host: Host, channelId: string) {
    this.#host = host;
    this.#channelId = channelId;
    this.users = new Cell(() => [...this.#timers.keys()]);
  }

  /** Handles an event. */
  heard(userId: string, isTyping: boolean): void {
    if (!isTyping && !this.#timers.has(userId)) return;
    clearTimeout(this.#timers.get(userId));
    if (isTyping)
      this.#timers.set(
        userId,
        setTimeout(() => this.heard(userId, false), EXPIRY_MS),
      );
    else this.#timers.delete(userId);
    this.users.invalidate();
  }

  /** Tells the others, at most every 3 s, until it ends. */
  tell(isTyping: boolean): void {
    const now = performance.now();
    if (isTyping ? now - this.#toldAt < REPEAT_MS : this.#toldAt === -Infinity) return;
    this.#toldAt = isTyping ? now : -Infinity;
    const params = { channel_id: this.#channelId, typing: isTyping };
    this.#host.call("typing", params, "now").catch(() => {});
  }

  /** The user's message ends its typing for the others by itself. */
  sent(): void {
    this.#toldAt = -Infinity;
  }
}
