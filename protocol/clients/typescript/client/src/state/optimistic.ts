/** Edits and reactions of the user that are shown before the server has answered. */

import type { ChatMessage } from "./types.ts";

export class Optimistic {
  #texts = new Map<string, string>();
  /** By message and emoji: the user's last action, and the number of requests in flight. */
  #reactions = new Map<string, Map<string, { isAdded: boolean; requests: number }>>();

  /** Shows another text until the returned function is called. */
  edit(messageId: string, text: string): () => void {
    this.#texts.set(messageId, text);
    return () => void this.#texts.delete(messageId);
  }

  /** Shows a reaction as added or removed until the returned functions of all requests are called. */
  react(messageId: string, emoji: string, isAdded: boolean): () => void {
    const emojis = this.#reactions.get(messageId) ?? new Map<string, never>();
    this.#reactions.set(messageId, emojis);
    const shown = emojis.get(emoji) ?? { isAdded, requests: 0 };
    shown.isAdded = isAdded;
    shown.requests += 1;
    emojis.set(emoji, shown);
    return () => {
      shown.requests -= 1;
      if (shown.requests === 0) emojis.delete(emoji);
      if (emojis.size === 0) this.#reactions.delete(messageId);
    };
  }

  /** Returns the messages as they are shown. */
  applyTo(messages: ChatMessage[]): ChatMessage[] {
    const isNeeded = this.#texts.size + this.#reactions.size > 0;
    return isNeeded ? messages.map((message) => this.#apply(message)) : messages;
  }

  #apply(message: ChatMessage): ChatMessage {
    const text = this.#texts.get(message.id) ?? message.text;
    const emojis = this.#reactions.get(message.id);
    if (message.deleted_at !== undefined || (text === message.text && !emojis)) return message;
    const reactions = { ...message.reactions };
    const own = new Set(message.own_reactions);
    for (const [emoji, { isAdded }] of emojis ?? []) {
      if (own.has(emoji) === isAdded) continue;
      const count = (reactions[emoji] ?? 0) + (isAdded ? 1 : -1);
      if (count > 0) reactions[emoji] = count;
      else delete reactions[emoji];
      if (isAdded) own.add(emoji);
      else own.delete(emoji);
    }
    return { ...message, text, reactions, own_reactions: [...own] };
  }
}
