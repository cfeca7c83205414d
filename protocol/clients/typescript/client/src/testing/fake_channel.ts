/** A channel of the server in memory. */

import type { EventFrame } from "../protocol/codec.ts";
import type { Channel, Entry, Gap, Message } from "../protocol/generated.ts";

type Params = Record<string, unknown>;

interface LogEntry {
  event: string;
  seq: number;
  at: number;
  /** The event's current data. */
  data: () => object;
  undo: () => void;
}

const METHODS = [
  "message.send",
  "message.list",
  "message.edit",
  "message.delete",
  "reaction.add",
  "reaction.remove",
  "participant.list",
];

export class FakeChannel {
  readonly channel: Channel;
  readonly messages: Message[] = [];
  /** Read positions by participant. */
  readonly participants = new Map<string, number>();
  seq = 0;
  at = 0;
  /** Number of events that the log keeps. */
  logEvents = 1000;
  #log: LogEntry[] = [];
  #reactions = new Map<string, Set<string>>();
  #version = 0;
  readonly #now: () => number;
  readonly #publish: (event: EventFrame) => void;

  constructor(id: string, name: string, now: () => number, publish: (event: EventFrame) => void) {
    this.channel = {
      id,
      name,
      type: "group",
      metadata: {},
      created_at: now(),
      participant_count: 0,
    };
    this.#now = now;
    this.#publish = publish;
  }

  get id(): string {
    return this.channel.id;
  }

  join(userId: string): void {
    this.participants.set(userId, this.messages.length);
    this.channel.participant_count = this.participants.size;
    this.#happen("participant.added", () => ({ participant: this.#participant(userId) }));
  }

  leave(userId: string): void {
    this.participants.delete(userId);
    this.channel.participant_count = this.participants.size;
    this.#happen("participant.removed", () => ({ participant: this.#participant(userId) }));
  }

  send(sender_id: string, fields: Partial<Message>): Message {
    const number = this.messages.length + 1;
    const message: Message = {
      id: `msg_${this.#now().toString(16).padStart(16, "0")}`,
      channel_id: this.id,
      number,
      seq: this.seq + 1,
      sender_id,
      kind: "text",
      text: "",
      attachments: [],
      mention_ids: [],
      reactions: {},
      metadata: {},
      created_at: this.#now(),
      ...fields,
    };
    this.messages.push(message);
    if (this.participants.has(sender_id)) this.participants.set(sender_id, number);
    const undo = () => void this.messages.pop();
    this.#happen("message.created", () => ({ message: this.#stored(number) }), undo);
    return message;
  }

  /** Forgets the newest events, as a store that failed over: they are replaced by others. */
  diverge(count: number): void {
    for (const { undo } of this.#log.splice(-count).reverse()) undo();
    this.seq = this.#log.at(-1)?.seq ?? 0;
    this.at = this.#log.at(-1)?.at ?? 0;
    for (const [user, read] of this.participants) {
      this.participants.set(user, Math.min(read, this.messages.length));
    }
  }

  mark(userId: string, number: number, method: string) {
    const read = this.participants.get(userId) ?? 0;
    const isBack = method === "read.unmark";
    const moved = isBack ? number - 1 : Math.max(read, number);
    const to = Math.min(moved, this.messages.length);
    this.participants.set(userId, to);
    this.#version += 1;
    return { number: to, version: this.#version, ...(isBack && { back: true }) };
  }

  entry(userId: string): Entry {
    const number = this.messages.length;
    const read = this.participants.get(userId) ?? 0;
    const last = this.messages.at(-1);
    return {
      channel_id: this.id,
      channel: this.channel,
      role: "member",
      seq: this.seq,
      at: this.at,
      number,
      read,
      unread: number - read,
      ...(last && { last_message: last }),
      participant_count: this.participants.size,
    };
  }

  /** The events after a position, or why there are none. */
  after(cursor: [] | [number, number]): { gap?: Gap; events: EventFrame[] } {
    const [seq, at] = cursor;
    if (seq === undefined) return { events: [] };
    const first = this.#log[0]?.seq ?? this.seq + 1;
    const stands = seq === this.seq ? this.at : this.#log.find((entry) => entry.seq === seq)?.at;
    if (seq > this.seq || (stands !== undefined && stands !== at))
      return { gap: "diverged", events: [] };
    if (seq + 1 < first) return { gap: "trimmed", events: [] };
    return {
      events: this.#log.filter((entry) => entry.seq > seq).map((entry) => this.#frame(entry)),
    };
  }

  knows(method: string): boolean {
    return METHODS.includes(method);
  }

  /** Carries out a request. Returns undefined if its object does not exist. */
  perform(userId: string, method: string, params: Params): object | undefined {
    if (!this.participants.has(userId)) return undefined;
    switch (method) {
      case "message.send":
        return { message: this.#send(userId, params) };
      case "message.list":
        return this.#list(userId, params);
      case "participant.list":
        return { items: [...this.participants.keys()].map((id) => this.#participant(id)) };
    }
    const message = this.messages.find(({ id }) => id === params.message_id);
    if (!message || message.deleted_at !== undefined) return undefined;
    switch (method) {
      case "message.edit":
        return { message: this.#edit(message, params) };
      case "message.delete":
        return this.#delete(message);
      case "reaction.add":
      case "reaction.remove":
        return this.#react(message, userId, String(params.emoji), method === "reaction.add");
    }
    return undefined;
  }

  #send(userId: string, { channel_id: _, message_id, ...fields }: Params): Message {
    const id = message_id as string | undefined;
    const known = this.messages.find((message) => message.id === id);
    return known ?? this.send(userId, { ...(fields as Partial<Message>), ...(id && { id }) });
  }

  #edit(message: Message, { text }: Params): Message {
    const edited = { text: String(text), edited_at: this.#now() };
    return this.#change(message, "message.updated", edited);
  }

  #delete(message: Message): object {
    const empty = { text: "", attachments: [], mention_ids: [], reactions: {}, metadata: {} };
    this.#change(message, "message.deleted", { ...empty, deleted_at: this.#now() });
    return {};
  }

  #react(message: Message, userId: string, emoji: string, isAdded: boolean): object {
    const key = `${message.id} ${emoji}`;
    const users = this.#reactions.get(key) ?? new Set<string>();
    this.#reactions.set(key, users);
    if (users.has(userId) === isAdded) return { count: users.size };
    const toggle = (isIn: boolean) => void (isIn ? users.add(userId) : users.delete(userId));
    toggle(isAdded);
    const { [emoji]: _, ...others } = message.reactions;
    const reactions = users.size > 0 ? { ...others, [emoji]: users.size } : others;
    this.messages[message.number - 1] = { ...message, reactions, seq: this.seq + 1 };
    const { id: message_id, number } = message;
    const data = () => {
      const isDeleted = this.#stored(number)?.deleted_at !== undefined;
      const told = { emoji: isDeleted ? "" : emoji, count: isDeleted ? 0 : users.size };
      return { message_id, number, user_id: userId, ...told };
    };
    this.#happen(isAdded ? "reaction.added" : "reaction.removed", data, () => {
      toggle(!isAdded);
      this.messages[number - 1] = message;
    });
    return { count: users.size };
  }

  #list(userId: string, { before, after, changed_after, limit = 50 }: Params): object {
    const all = this.messages.map((message) => ({
      ...message,
      own_reactions: Object.keys(message.reactions).filter((emoji) =>
        this.#reactions.get(`${message.id} ${emoji}`)?.has(userId),
      ),
    }));
    const max = limit as number;
    if (changed_after !== undefined) {
      const changed = all.filter(({ seq }) => seq > (changed_after as number));
      changed.sort((a, b) => a.seq - b.seq);
      return { items: changed.slice(0, max), more: changed.length > max };
    }
    if (after !== undefined) {
      const newer = all.filter(({ number }) => number > (after as number));
      return { items: newer.slice(0, max), more: newer.length > max };
    }
    const older = all.filter(({ number }) => before === undefined || number < (before as number));
    return { items: older.slice(-max), more: older.length > max };
  }

  #change(message: Message, event: string, fields: Partial<Message>): Message {
    const changed = { ...message, ...fields, seq: this.seq + 1 };
    this.messages[message.number - 1] = changed;
    const undo = () => void (this.messages[message.number - 1] = message);
    this.#happen(event, () => ({ message: this.#stored(message.number) }), undo);
    return changed;
  }

  #stored(number: number): Message | undefined {
    return this.messages[number - 1];
  }

  #participant(user_id: string): object {
    const ids = { id: `prt_${user_id}`, channel_id: this.id, user_id };
    return { ...ids, role: "member", created_at: 1, read: this.participants.get(user_id) ?? 0 };
  }

  /** A replayed event carries the entity's state at the time of the replay. */
  #happen(event: string, data: () => object, undo = () => {}): void {
    this.seq += 1;
    this.at = this.#now();
    const entry = { event, seq: this.seq, at: this.at, data, undo };
    this.#log.push(entry);
    if (this.#log.length > this.logEvents) this.#log.shift();
    this.#publish(this.#frame(entry));
  }

  #frame({ event, seq, at, data }: LogEntry): EventFrame {
    return { event, channel_id: this.id, seq, at, data: data() as Record<string, unknown> };
  }
}
