import { expect, vi } from "vitest";

import type { Chat } from "../../src/index.ts";
import type { FakeServer } from "../../src/testing/index.ts";
import { chatOf, serverWithChannel } from "./help.ts";

/** Two users who do random things, on a bad network and with a store that fails. */
export class Run {
  readonly server: FakeServer = serverWithChannel();
  readonly chats: Chat[];
  readonly sent = new Set<string>();
  #state: number;
  readonly #isDiverging: boolean;

  constructor(seed: number, isDiverging: boolean) {
    this.#isDiverging = isDiverging;
    this.#state = seed * 7919 + 1;
    vi.spyOn(Math, "random").mockImplementation(() => this.below(1000) / 1000);
    this.chats = ["alice", "bob"].map((user) => chatOf(this.server, user).connect());
    const channel = this.server.channels.get("general");
    // If a log was also trimmed, its divergence cannot be detected.
    if (channel && !isDiverging && this.below(2) === 0) channel.logEvents = 3 + this.below(20);
    this.server.onRequest = ({ method }) => {
      if (method === "connect") return this.below(10) === 0 ? "drop" : undefined;
      const fault = this.below(30);
      if (fault === 0) return "lose";
      if (fault === 1) return "drop";
      if (fault === 2) return { code: "unavailable", message: "no store" };
      if (fault === 3) return { code: "rate_limited", message: "slow", retry_after_ms: 300 };
      return undefined;
    };
  }

  below(bound: number): number {
    this.#state = (this.#state * 48_271) % 0x7fffffff;
    return this.#state % bound;
  }

  async step(): Promise<void> {
    const chat = this.chats[this.below(2)] as Chat;
    const channel = chat.channel("general");
    const { items } = channel.messages.getSnapshot();
    const some = items[this.below(Math.max(items.length, 1))];
    const ignore = () => {};
    switch (this.below(12)) {
      case 0:
        this.server.cut();
        break;
      case 1:
        this.server.isDown = this.below(3) === 0;
        break;
      case 2:
        if (some) channel.edit(some.id, { text: `edited ${this.below(1000)}` }).catch(ignore);
        break;
      case 3:
        if (some) channel.delete(some.id).catch(ignore);
        break;
      case 4:
        if (some)
          channel.react(some.id, "xyz"[this.below(3)] ?? "x", this.below(2) === 0).catch(ignore);
        break;
      case 5:
        channel.loadOlder().catch(ignore);
        break;
      case 6:
        chat.wake();
        break;
      case 7:
        if (this.#isDiverging && this.below(4) === 0) {
          this.server.cut();
          this.server.channels.get("general")?.diverge(1 + this.below(4));
        }
        break;
      default:
        this.sent.add(channel.send(`text ${this.below(1000)}`));
    }
    await vi.advanceTimersByTimeAsync(this.below(400));
  }

  async heal(): Promise<void> {
    this.server.isDown = false;
    this.server.onRequest = () => undefined;
    await vi.advanceTimersByTimeAsync(120_000);
  }

  check(seed: number): void {
    const stored = this.server.channels.get("general")?.messages ?? [];
    for (const chat of this.chats) {
      const channel = chat.channel("general");
      const { items, hasNewer } = channel.messages.getSnapshot();
      const first = (items[0]?.number ?? 1) - 1;
      const shown = items.map(({ own_reactions: _, status: __, ...message }) => message);
      const expected = stored.slice(first).map(({ ...message }) => message);
      expect(shown, `seed ${seed}`).toEqual(expected);
      expect(hasNewer).toBe(false);
      expect(chat.connection.getSnapshot().status, `seed ${seed}`).toBe("online");
      expect(channel.info.getSnapshot().number, `seed ${seed}`).toBe(stored.length);
    }
  }
}
