/** A message with the reactions that events have reported. */

import type { Message } from "../protocol/generated.ts";
import type { ChatMessage } from "./types.ts";

/** The state of an emoji according to events: a count, or whether the user has it. */
type SequencedValues<T> = Map<string, { seq: number; value: T }>;

/**
 * The event of a reaction has a count, not the message. It may come before an older state of the
 * message, such as an edit that is read after a gap: so it is kept beside the state, until there is
 * one that includes it.
 */
export class MessageRecord {
  #seq = -1;
  #reactions: Readonly<Record<string, number>> = {};
  #counts: SequencedValues<number> | undefined;
  /** The user's reactions according to a page, and the events since. */
  #own: string[] = [];
  #ownSeq = -1;
  #ownEvents: SequencedValues<boolean> | undefined;
  /** The message as it is shown: another object after each change. */
  message: ChatMessage;

  constructor(state: Message) {
    this.message = state as ChatMessage;
    this.merge(state);
  }

  /** Takes another state. */
  merge(state: Message): void {
    const { seq, reactions, own_reactions } = state;
    const isNewer = seq >= this.#seq;
    if (isNewer) {
      this.#seq = seq;
      this.#reactions = reactions;
      this.#counts = after(this.#counts, seq);
    }
    if (own_reactions && seq >= this.#ownSeq) {
      this.#own = own_reactions;
      this.#ownSeq = seq;
      this.#ownEvents = after(this.#ownEvents, seq);
    }
    this.#update(isNewer ? state : this.message);
  }

  /** Takes a reaction. `isOwn`: whether the user has it now, if it is the user's. */
  react(emoji: string, count: number, seq: number, isOwn: boolean | undefined): void {
    if (seq < this.message.seq) return;
    this.#counts = new Map(this.#counts).set(emoji, { seq, value: count });
    if (isOwn !== undefined) {
      this.#ownEvents = new Map(this.#ownEvents).set(emoji, { seq, value: isOwn });
    }
    this.#update(this.message);
  }

  #update(content: Message): void {
    let [seq, reactions, own_reactions] = [this.#seq, this.#reactions, this.#own];
    for (const [emoji, told] of this.#counts ?? []) {
      const { [emoji]: _, ...others } = reactions;
      reactions = told.value > 0 ? { ...others, [emoji]: told.value } : others;
      seq = Math.max(seq, told.seq);
    }
    for (const [emoji, { value }] of this.#ownEvents ?? []) {
      own_reactions = own_reactions.filter((other) => other !== emoji);
      if (value) own_reactions.push(emoji);
    }
    this.message = { ...content, seq, reactions, own_reactions, status: "sent" };
  }
}

/** Returns the reports after this `seq`. */
function after<T>(
  told: SequencedValues<T> | undefined,
  seq: number,
): SequencedValues<T> | undefined {
  const rest = [...(told ?? [])].filter(([, event]) => event.seq > seq);
  return rest.length > 0 ? new Map(rest) : undefined;
}
