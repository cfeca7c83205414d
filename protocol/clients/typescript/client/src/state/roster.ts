/** The participants of a channel, and up to where they have read. */

import type { Participant, ReadData } from "../protocol/generated.ts";
import { Cell } from "./cell.ts";
import type { Host } from "./host.ts";
import type { Participants } from "./types.ts";

const NOTHING: Participants = { items: [], isLoaded: false };

export class Roster {
  readonly #host: Host;
  readonly #channelId: string;
  #loaded = NOTHING;
  #cursor: string | undefined;
  #reads: Readonly<Record<string, number>> = {};
  readonly participants = new Cell(() => this.#loaded);
  readonly reads = new Cell(() => this.#reads);

  constructor(host: Host, channelId: string) {
    this.#host = host;
    this.#channelId = channelId;
  }

  /** Loads the next page. */
  async loadMore(): Promise<void> {
    if (this.#loaded.isLoaded) return;
    const params = { channel_id: this.#channelId, ...(this.#cursor && { cursor: this.#cursor }) };
    const { items, cursor } = await this.#host.call("participant.list", params, "retry");
    this.#cursor = cursor;
    this.#set([...this.#without(items), ...items], cursor === undefined);
    for (const { user_id, read = 0 } of items) this.read({ user_id, number: read });
  }

  /** After a gap the list is loaded again. */
  reload(): void {
    if (this.#loaded === NOTHING) return;
    this.#cursor = undefined;
    this.#loaded = { ...this.#loaded, isLoaded: false };
    this.loadMore().catch(() => {});
  }

  /** Applies an event. */
  apply(participant: Participant, isRemoved: boolean): void {
    if (this.#loaded === NOTHING) return;
    const others = this.#without([participant]);
    this.#set(isRemoved ? others : [...others, participant], this.#loaded.isLoaded);
  }

  read({ user_id, number, back }: ReadData): void {
    if (!back && number <= (this.#reads[user_id] ?? 0)) return;
    this.#reads = { ...this.#reads, [user_id]: number };
    this.reads.invalidate();
  }

  #without(participants: Participant[]): Participant[] {
    const ids = new Set(participants.map(({ user_id }) => user_id));
    return this.#loaded.items.filter(({ user_id }) => !ids.has(user_id));
  }

  #set(items: Participant[], isLoaded: boolean): void {
    this.#loaded = { items, isLoaded };
    this.participants.invalidate();
  }
}
