/** A message with the reactions that its events have told. */

import type { Message } from "../protocol/generated.ts";

/**
 * The event of a reaction tells a count, not the message. It may come before an older state of the
 * message, such as an edit that is read after a gap: so it is kept beside the state, until there is
 * one that includes it.
 */
export class MessageRecord {
  #state: Message;
  #counts = new Map<string, { seq: number; count: number }>();
  /** The user's reactions as a page told them, and the events since. */
  #own: string[] = [];
  #ownSeq = -1;
  #ownEvents = new Map<string, { seq: number; isAdded: boolean }>();
  message: Message;

  constructor(state: Message) {
    this.#state = this.message = state;
    this.merge(state);
  }

  /** Takes another state. */
  merge(state: Message): void {
    const { seq, own_reactions } = state;
    if (seq < this.#state.seq && !own_reactions) return;
    if (seq >= this.#state.seq) {
      this.#state = state;
      removeUpTo(this.#counts, seq);
    }
    if (own_reactions && seq >= this.#ownSeq) {
      this.#own = own_reactions;
      this.#ownSeq = seq;
      removeUpTo(this.#ownEvents, seq);
    }
    this.#update();
  }

  /** Takes a reaction. `isAdded` if it is the user's. */
  react(emoji: string, count: number, seq: number, isAdded: boolean | undefined): void {
    if (seq < this.message.seq) return;
    this.#counts.set(emoji, { seq, count });
    if (isAdded !== undefined) this.#ownEvents.set(emoji, { seq, isAdded });
    this.#update();
  }

  #update(): void {
    let { seq } = this.#state;
    const reactions = { ...this.#state.reactions };
    for (const [emoji, told] of this.#counts) {
      if (told.count > 0) reactions[emoji] = told.count;
      else delete reactions[emoji];
      seq = Math.max(seq, told.seq);
    }
    const own = new Set(this.#own);
    for (const [emoji, { isAdded }] of this.#ownEvents) {
      if (isAdded) own.add(emoji);
      else own.delete(emoji);
    }
    this.message = { ...this.#state, seq, reactions, own_reactions: [...own] };
  }
}

function removeUpTo(told: Map<string, { seq: number }>, seq: number): void {
  for (const [emoji, event] of told) if (event.seq <= seq) told.delete(emoji);
}
