/** The messages of a channel that are loaded: an interval without a hole, ordered by `number`. */

import type { Message, Reaction } from "../protocol/generated.ts";
import { MessageRecord } from "./message_record.ts";
import type { ChatMessage } from "./types.ts";

/**
 * Messages may be added in any order: of two states of one message the one with the greater `seq` is
 * kept, so a deleted message stays deleted. Messages behind a hole are kept, and shown when the
 * hole is filled.
 */
export class MessageWindow {
  #records = new Map<number, MessageRecord>();
  #numbers = new Map<string, number>();
  #items: ChatMessage[] | undefined;
  /** Numbers of the first and the last message. Without messages `last` is less than `first`. */
  first = 1;
  last = 0;
  isLoaded = false;
  /** Whether there are older messages to load. */
  hasOlder = false;
  /** Whether it continues with each new message. Else newer ones are to load. */
  isFollowing = false;

  get(id: string): ChatMessage | undefined {
    return this.#record(id)?.message;
  }

  #record(id: string): MessageRecord | undefined {
    return this.#records.get(this.#numbers.get(id) ?? 0);
  }

  /** Whether this message is in the interval. */
  shows(id: string): boolean {
    return (this.#numbers.get(id) ?? Infinity) <= this.last;
  }

  /** The messages of the interval, the same objects until they change. */
  items(): ChatMessage[] {
    if (!this.#items) {
      this.#items = [];
      for (let number = this.first; number <= this.last; number += 1) {
        const record = this.#records.get(number);
        if (record) this.#items.push(record.message);
      }
    }
    return this.#items;
  }

  /** Adds a message of an event, a reply, or a page of changes. */
  merge(message: Message): void {
    if (!this.isLoaded || message.number < this.first) return;
    if (message.number > this.last && !this.isFollowing) return;
    this.#put(message);
    this.#extend();
  }

  /** Adds a page. Replaces the loaded messages unless the page continues them. */
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
    if (emoji) this.#react(message_id, emoji, count, seq, isOwn ? isAdded : undefined);
  }

  /** Shows a reaction of the user before its event. */
  expect(id: string, emoji: string, count: number, isAdded: boolean): void {
    this.#react(id, emoji, count, this.get(id)?.seq ?? 0, isAdded);
  }

  #react(id: string, emoji: string, count: number, seq: number, isOwn: boolean | undefined): void {
    this.#record(id)?.react(emoji, count, seq, isOwn);
    this.#items = undefined;
  }

  /** Keeps only the newest messages. */
  trim(max: number): void {
    if (this.last - this.first < max) return;
    for (; this.last - this.first >= max; this.first += 1) this.#drop(this.first);
    this.hasOlder = true;
  }

  clear(): void {
    this.#records.clear();
    this.#numbers.clear();
    this.#items = undefined;
    this.first = 1;
    this.last = 0;
    this.isLoaded = this.hasOlder = this.isFollowing = false;
  }

  #put(message: Message): void {
    const { id, number } = message;
    this.#items = undefined;
    // The store lost the message that had this number.
    if (this.#records.get(number)?.message.id !== id) this.#drop(number);
    const known = this.#records.get(number);
    if (known) return known.merge(message);
    this.#records.set(number, new MessageRecord(message));
    this.#numbers.set(id, number);
  }

  #drop(number: number): void {
    this.#items = undefined;
    this.#numbers.delete(this.#records.get(number)?.message.id ?? "");
    this.#records.delete(number);
  }

  #extend(): void {
    while (this.#records.has(this.last + 1)) this.last += 1;
  }
}
