/** The messages of a channel that are loaded: an interval without a hole, ordered by `number`. */

import type { Message, Reaction } from "../protocol/generated.ts";
import { MessageRecord } from "./message_record.ts";

/**
 * Messages may be added in any order: of two states of one message the one with the greater `seq` is
 * kept, so a deleted message stays deleted. What lies behind a hole is kept, and shown when the hole
 * is filled.
 */
export class MessageWindow {
  #byId = new Map<string, MessageRecord>();
  #ids = new Map<number, string>();
  /** Numbers of the first and the last message. Without messages `last` is less than `first`. */
  first = 1;
  last = 0;
  isLoaded = false;
  /** Whether there are older messages to load. */
  hasOlder = false;
  /** Whether it continues with each new message. Else newer ones are to load. */
  isFollowing = false;

  get(id: string): Message | undefined {
    return this.#byId.get(id)?.message;
  }

  /** Whether this message is in the interval. */
  shows(id: string): boolean {
    const number = this.get(id)?.number;
    return number !== undefined && number <= this.last;
  }

  items(): Message[] {
    const items = [];
    for (let number = this.first; number <= this.last; number += 1) {
      const message = this.get(this.#ids.get(number) ?? "");
      if (message) items.push(message);
    }
    return items;
  }

  /** Adds a message of an event, a reply, or a page of changes. */
  merge(message: Message): void {
    if (!this.isLoaded || message.number < this.first) return;
    if (message.number > this.last && !this.isFollowing) return;
    this.#put(message);
    this.#extend();
  }

  /** Adds a page in place of what is loaded, unless it continues it. */
  page(items: Message[], hasOlder: boolean, isNewest: boolean): void {
    const [first, last] = [items[0]?.number ?? 1, items.at(-1)?.number ?? 0];
    const isContinued = this.isLoaded && first <= this.last + 1 && last + 1 >= this.first;
    if (!isContinued) {
      this.clear();
      this.first = first;
      this.last = first - 1;
    }
    if (first <= this.first) {
      this.first = Math.min(this.first, first);
      this.hasOlder = hasOlder;
    }
    this.isLoaded = true;
    this.isFollowing ||= isNewest;
    for (const message of items) this.#put(message);
    this.last = Math.max(this.last, last);
    this.#extend();
  }

  /** Applies an event of a reaction. `isOwn` says whether it is the user's. */
  react(
    { message_id, emoji, count }: Reaction,
    seq: number,
    isOwn: boolean,
    isAdded: boolean,
  ): void {
    // The emoji is empty if the message was deleted meanwhile.
    if (emoji) this.#byId.get(message_id)?.react(emoji, count, seq, isOwn ? isAdded : undefined);
  }

  /** Shows a reaction of the user before its event. */
  expect(id: string, emoji: string, count: number, isAdded: boolean): void {
    const record = this.#byId.get(id);
    record?.react(emoji, count, record.message.seq, isAdded);
  }

  /** Keeps only the newest messages. */
  trim(max: number): void {
    if (this.last - this.first < max) return;
    for (; this.last - this.first >= max; this.first += 1) {
      this.#byId.delete(this.#ids.get(this.first) ?? "");
      this.#ids.delete(this.first);
    }
    this.hasOlder = true;
  }

  clear(): void {
    this.#byId.clear();
    this.#ids.clear();
    this.first = 1;
    this.last = 0;
    this.isLoaded = this.hasOlder = this.isFollowing = false;
  }

  #put(message: Message): void {
    const { id, number } = message;
    const other = this.#ids.get(number);
    // The store lost the message that had this number.
    if (other !== undefined && other !== id) this.#byId.delete(other);
    const known = this.#byId.get(id);
    if (known) known.merge(message);
    else this.#byId.set(id, new MessageRecord(message));
    this.#ids.set(number, id);
  }

  #extend(): void {
    while (this.#ids.has(this.last + 1)) this.last += 1;
  }
}
