/** A channel: its state, and the actions of the user in it. */

import type { EventFrame } from "../protocol/codec.ts";
import type {
  Channel,
  EditMessage,
  Entry,
  ErrorBody,
  Message,
  Participant,
  Reaction,
  ReadData,
  Role,
  SendMessage,
  TypingData,
} from "../protocol/generated.ts";
import { Cell, type Observable } from "./cell.ts";
import { History } from "./history.ts";
import type { Host } from "./host.ts";
import { Optimistic } from "./optimistic.ts";
import { Roster } from "./roster.ts";
import type { ChannelInfo, ChatMessage, Messages, Participants, SavedChannel } from "./types.ts";
import { Typing } from "./typing.ts";

/** Number of messages that are kept of a channel that is not open. */
const KEPT_MESSAGES = 50;

export class ChatChannel {
  readonly id: string;
  readonly #host: Host;
  readonly #changed: () => void;
  #channel: Channel | undefined;
  #role: Role | undefined;
  /** `[seq, at]` of the last event. */
  #position: [number, number] | undefined;
  /** The state of an entry includes the events up to its `seq`. */
  #entrySeq = 0;
  #read = 0;
  #readVersion = -1;
  #unread = 0;
  #at = 0;
  #last: Message | undefined;
  #history: History;
  #roster: Roster;
  #typing: Typing;
  /** The user's messages that are not shown among the stored ones yet. */
  #pending = new Map<string, ChatMessage>();
  #optimistic = new Optimistic();
  #marking: number | undefined;
  #users = 0;
  #isRecovering = false;
  readonly #infoCell = new Cell(() => this.#info());
  readonly #messagesCell = new Cell(() => this.#messages());

  /** Name, role, unread, newest message. */
  readonly info: Observable<ChannelInfo> = this.#infoCell;
  /** The messages that are loaded. */
  readonly messages: Observable<Messages> = this.#messagesCell;
  /** Ids of the others who type. */
  readonly typing: Observable<string[]>;
  /** The participants that are loaded. */
  readonly participants: Observable<Participants>;
  /** Numbers up to which users have read, as far as they are known. */
  readonly reads: Observable<Readonly<Record<string, number>>>;

  /** @internal `changed` is called after each change of `info`. */
  constructor(id: string, host: Host, changed: () => void) {
    this.id = id;
    this.#host = host;
    this.#changed = changed;
    this.#history = new History(host, id, () => this.#messagesCell.invalidate());
    this.#typing = new Typing(host, id);
    this.#roster = new Roster(host, id);
    this.typing = this.#typing.users;
    this.participants = this.#roster.participants;
    this.reads = this.#roster.reads;
  }

  /**
   * Shows the channel: subscribes to it and loads the newest messages. Returns a function that ends
   * it. The channel may be opened several times, and is closed when all have ended.
   */
  open(): () => void {
    this.#users += 1;
    this.#host.command({ type: "follow", channelId: this.id });
    if (!this.#history.window.isLoaded) void this.loadNewest();
    let close = () => this.#close();
    return () => {
      close();
      close = () => {};
    };
  }

  #close(): void {
    this.#users -= 1;
    if (this.#users > 0) return;
    if (this.#history.window.isFollowing) {
      this.#history.window.trim(KEPT_MESSAGES);
    } else {
      this.#history.clear();
      this.#history.track(false);
    }
    this.#messagesCell.invalidate();
  }

  /** Loads the newest messages, in place of those that are loaded if they are far away. */
  loadNewest(): Promise<void> {
    return this.#history.loadNewest();
  }

  /** Loads a page of older messages. */
  loadOlder(): Promise<void> {
    return this.#history.loadOlder();
  }

  /** Loads a page of newer messages. */
  loadNewer(): Promise<void> {
    return this.#history.loadNewer();
  }

  /** Shows the messages around a number, for example of a message that was replied to. */
  loadAround(number: number): Promise<void> {
    return this.#history.loadAround(number);
  }

  /** Loads the next page of participants, with the numbers up to which they have read. */
  loadParticipants(): Promise<void> {
    return this.#roster.loadMore();
  }

  /** Sends a message, which is shown at once. Returns its id. */
  send(content: string | Omit<SendMessage, "message_id">): string {
    const message = typeof content === "string" ? { text: content } : content;
    const id = newMessageId();
    const { userId } = this.#host;
    this.#pending.set(id, {
      id,
      channel_id: this.id,
      number: 0,
      seq: 0,
      kind: "text",
      text: "",
      attachments: [],
      mention_ids: [],
      metadata: {},
      ...message,
      ...(userId !== undefined && { sender_id: userId }),
      reactions: {},
      created_at: Date.now(),
      status: "pending",
    });
    this.#typing.sent();
    this.#transmit(id, message);
    const { isLoaded, isFollowing } = this.#history.window;
    if (isLoaded && !isFollowing) void this.loadNewest();
    return id;
  }

  /** Sends a message again that failed. */
  retry(messageId: string): void {
    const message = this.#pending.get(messageId);
    if (message?.status !== "failed") return;
    const { error: _, ...rest } = message;
    this.#pending.set(messageId, { ...rest, status: "pending" });
    this.#transmit(messageId, contentOf(message));
  }

  /** Removes a message that failed. */
  discard(messageId: string): void {
    if (this.#pending.get(messageId)?.status === "failed") this.#pending.delete(messageId);
    this.#messagesCell.invalidate();
  }

  #transmit(message_id: string, message: SendMessage): void {
    this.#messagesCell.invalidate();
    this.#host.command({ type: "send", channelId: this.id, message: { ...message, message_id } });
  }

  /** Edits a message. Fields that are left out stay; null removes. */
  async edit(messageId: string, changes: EditMessage): Promise<void> {
    const { text } = changes;
    const end = text === undefined ? () => {} : this.#optimistic.edit(messageId, text ?? "");
    this.#messagesCell.invalidate();
    try {
      const params = { channel_id: this.id, message_id: messageId, ...changes };
      const { message } = await this.#host.call("message.edit", params, "retry");
      this.#merge(message);
    } finally {
      end();
      this.#invalidate();
    }
  }

  /** Deletes a message. It keeps its place and loses its content. */
  async delete(messageId: string): Promise<void> {
    const params = { channel_id: this.id, message_id: messageId };
    await this.#host.call("message.delete", params, "retry");
  }

  /** Adds a reaction, or removes it. */
  async react(messageId: string, emoji: string, isAdded = true): Promise<void> {
    // As the server writes it, so that all spellings count together.
    emoji = emoji.normalize("NFC").replace(/[\ufe0e\ufe0f]/g, "");
    const { window } = this.#history;
    const seq = window.get(messageId)?.seq;
    const end = this.#optimistic.react(messageId, emoji, isAdded);
    this.#messagesCell.invalidate();
    try {
      const method = isAdded ? "reaction.add" : "reaction.remove";
      const params = { channel_id: this.id, message_id: messageId, emoji };
      const { count } = await this.#host.call(method, params, "retry");
      // If the event was faster, its count is not older.
      if (window.get(messageId)?.seq === seq) window.expect(messageId, emoji, count, isAdded);
    } finally {
      end();
      this.#messagesCell.invalidate();
    }
  }

  /** Marks messages as read, up to this number or to the newest. */
  async markRead(number = this.#history.newest): Promise<void> {
    if (number <= this.#read) return;
    this.#readTo(number);
    const isMarking = this.#marking !== undefined;
    this.#marking = number;
    if (isMarking) return;
    try {
      for (let sent = 0; sent !== this.#marking;) {
        sent = this.#marking;
        await this.#host.call("read.mark", { channel_id: this.id, number: sent }, "retry");
      }
    } finally {
      this.#marking = undefined;
    }
  }

  /** Marks a message and all after it as not read. */
  async markUnread(number: number): Promise<void> {
    await this.#host.call("read.unmark", { channel_id: this.id, number });
  }

  /** Tells the others that the user types, or has stopped. May be called for each key. */
  setTyping(isTyping: boolean): void {
    this.#typing.tell(isTyping);
  }

  /** @internal Takes an entry: the state at its `seq`. */
  enter(entry: Entry): void {
    const { channel, role, last_message: last, seq } = entry;
    this.#channel = channel ?? this.#channel;
    this.#role = role ?? this.#role;
    const isOld = this.#position && seq < this.#position[0] && !entry.gap;
    this.#position ??= [seq, entry.at];
    if (!isOld) {
      this.#entrySeq = seq;
      this.#at = entry.at;
      this.#history.newest = entry.number;
      this.#read = entry.read;
      this.#unread = entry.unread ?? entry.number - entry.read;
      if (last) this.#merge(last);
    }
    this.#invalidate();
  }

  /** @internal Returns the state to save for the next start; undefined while incomplete. */
  save(): SavedChannel | undefined {
    const { window, newest } = this.#history;
    const position = this.#position;
    if (!position || position[0] < this.#entrySeq || this.#isRecovering) return undefined;
    const isWhole = window.isFollowing && window.last === newest;
    return {
      info: this.#info(),
      position,
      messages: isWhole ? window.items() : [],
      hasOlder: window.hasOlder,
      pending: [...this.#pending.values()],
    };
  }

  /** @internal Restores saved state. */
  restore({ messages, hasOlder, pending }: SavedChannel): void {
    if (messages.length > 0) {
      this.#history.track(true);
      this.#history.window.page(messages, hasOlder, true);
    }
    for (const message of pending) {
      this.#pending.set(message.id, message);
      if (message.status === "pending") this.#transmit(message.id, contentOf(message));
    }
    this.#invalidate();
  }

  /** @internal The user is not in the channel any more. */
  removed(): void {
    this.#position = this.#role = this.#last = undefined;
    this.#entrySeq = this.#unread = this.#history.newest = 0;
    this.#history.clear();
    this.#history.track(false);
    this.#pending.clear();
    this.#invalidate();
  }

  /** @internal The stream continues at another position. */
  gap(isDiverged: boolean, to: [number, number]): void {
    this.#position = to;
    this.#isRecovering = true;
    if (isDiverged) {
      this.#history.clear();
      this.#last = undefined;
      // The newest number comes with the entry of the gap, or otherwise with a page.
      if (this.#entrySeq !== to[0]) this.#history.newest = this.#entrySeq = 0;
    }
    this.#roster.reload();
    this.#invalidate();
  }

  /** @internal Takes messages that were read after a gap. */
  recover(items: Message[], newest?: { more: boolean }): void {
    if (newest && this.#history.isTracked) this.#history.window.page(items, newest.more, true);
    for (const message of items) {
      this.#merge(message);
      this.#count(message);
    }
    this.#invalidate();
  }

  /** @internal All that a gap requires was read. */
  recovered(): void {
    this.#isRecovering = false;
    const { isLoading, window } = this.#history;
    if (this.#users > 0 && !window.isLoaded && !isLoading) void this.loadNewest();
    this.#history.fill();
  }

  /** @internal A message was stored. */
  stored(message: Message): void {
    if (this.#pending.has(message.id) && this.#history.window.isFollowing) {
      // It is shown at the end until those before it have come.
      this.#pending.set(message.id, { ...message, status: "sent" });
    } else {
      this.#pending.delete(message.id);
    }
    this.#merge(message);
    this.#invalidate();
  }

  /** @internal A message will not be sent any more. */
  failed(messageId: string, error: ErrorBody): void {
    const pending = this.#pending.get(messageId);
    if (pending) this.#pending.set(messageId, { ...pending, status: "failed", error });
    this.#messagesCell.invalidate();
  }

  /** @internal Applies an event. */
  apply({ event, data, seq = 0, at }: EventFrame): void {
    // An entry, or another tab's events, may be ahead of it: then it is counted already.
    const last = this.#position?.[0] ?? 0;
    const isNew = seq > Math.max(this.#entrySeq, last);
    if (at !== undefined && seq > last) this.#position = [seq, at];
    this.#at = Math.max(this.#at, at ?? 0);
    switch (event) {
      case "message.created":
      case "message.updated":
      case "message.deleted":
        this.#applyMessage(event, data.message as Message, isNew);
        break;
      case "reaction.added":
      case "reaction.removed": {
        const reaction = data as unknown as Reaction;
        const isOwn = reaction.user_id === this.#host.userId;
        this.#history.window.react(reaction, seq, isOwn, event === "reaction.added");
        break;
      }
      case "participant.added":
      case "participant.updated":
      case "participant.removed":
        this.#applyParticipant(event, data.participant as Participant, isNew);
        break;
      case "channel.updated":
        this.#channel = data.channel as Channel;
        break;
      case "typing": {
        const { user_id, typing } = data as unknown as TypingData;
        return this.#typing.heard(user_id, typing);
      }
      case "read.marked":
        this.#applyRead(data as unknown as ReadData);
    }
    this.#invalidate();
  }

  #applyMessage(event: string, message: Message, isNew: boolean): void {
    this.#typing.heard(message.sender_id ?? "", false);
    this.#merge(message);
    if (!isNew) return;
    if (event === "message.created") this.#count(message);
    if (event === "message.deleted" && message.number > this.#read && !this.#isOwn(message)) {
      this.#unread = Math.max(this.#unread - 1, 0);
    }
  }

  #isOwn({ sender_id }: Message): boolean {
    return sender_id !== undefined && sender_id === this.#host.userId;
  }

  /** Counts a message if it is the newest. Sending one reads those before it. */
  #count(message: Message): void {
    const { number, deleted_at } = message;
    if (number <= this.#history.newest) return;
    this.#history.newest = number;
    if (this.#isOwn(message)) this.#readTo(number);
    else if (number > this.#read && deleted_at === undefined) this.#unread += 1;
  }

  #applyParticipant(event: string, participant: Participant, isNew: boolean): void {
    const isRemoved = event === "participant.removed";
    if (this.#channel && isNew && event !== "participant.updated") {
      const participant_count = this.#channel.participant_count + (isRemoved ? -1 : 1);
      this.#channel = { ...this.#channel, participant_count };
    }
    if (participant.user_id === this.#host.userId) this.#role = participant.role;
    this.#roster.apply(participant, isRemoved);
  }

  #applyRead(data: ReadData): void {
    const { user_id, number, back, version = this.#readVersion } = data;
    this.#roster.read(data);
    if (user_id !== this.#host.userId || version < this.#readVersion) return;
    this.#readVersion = version;
    if (back || number > this.#read) this.#readTo(number);
  }

  #readTo(number: number): void {
    const left = Math.max(this.#history.newest - number, 0);
    this.#unread = number > this.#read ? Math.min(this.#unread, left) : left;
    this.#read = number;
    this.#invalidate();
  }

  #merge(message: Message): void {
    this.#history.window.merge(message);
    const last = this.#last;
    const isNewest = message.number > (last?.number ?? 0);
    if (last?.id === message.id ? message.seq > last.seq : isNewest) this.#last = message;
    if (this.#history.window.shows(message.id)) this.#pending.delete(message.id);
  }

  #info(): ChannelInfo {
    return {
      id: this.id,
      channel: this.#channel,
      role: this.#role,
      number: this.#history.newest,
      read: this.#read,
      unread: this.#unread,
      lastMessage: this.#last,
      at: this.#at,
    };
  }

  #messages(): Messages {
    const { window, isLoading, error } = this.#history;
    const { isLoaded, hasOlder, isFollowing } = window;
    const stored = this.#optimistic.applyTo(window.items());
    const pending = [...this.#pending.values()].filter(({ id }) => !window.shows(id));
    const hasNewer = isLoaded && !isFollowing;
    return { items: [...stored, ...pending], isLoaded, isLoading, hasOlder, hasNewer, error };
  }

  #invalidate(): void {
    this.#infoCell.invalidate();
    this.#messagesCell.invalidate();
    this.#changed();
  }
}

function newMessageId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `msg_${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** The parameters under which a message was sent. */
function contentOf(message: ChatMessage): SendMessage {
  const { text, attachments, mention_ids, metadata, reply_to_id } = message;
  return { text, attachments, mention_ids, metadata, ...(reply_to_id && { reply_to_id }) };
}
