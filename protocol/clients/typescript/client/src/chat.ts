/** A client with its state. */

import { Connection, type ConnectionSettings } from "./connection/connection.ts";
import type { Link } from "./connection/link.ts";
import {
  type CallMode,
  type Command,
  type Outcome,
  type Position,
  type Resume,
  type Update,
} from "./machine/io.ts";
import { ChaosError } from "./policy/errors.ts";
import type { EventFrame } from "./protocol/codec.ts";
import type {
  Connected,
  CreateChannel,
  Entry,
  Methods,
  Presence,
  PresenceData,
  User,
} from "./protocol/generated.ts";
import { Cell, type Observable } from "./state/cell.ts";
import { ChatChannel } from "./state/channel.ts";
import type { Host } from "./state/host.ts";
import { PresenceWatch } from "./state/presence.ts";
import type { ChannelInfo, ConnectionState, SavedUser } from "./state/types.ts";
import { Users } from "./state/users.ts";

export interface ChatSettings extends ConnectionSettings {
  /** Another connection than one of one's own. */
  link?: Link;
}

export class Chat implements Host {
  readonly #link: Link;
  #connection: ConnectionState = { status: "connecting", why: undefined, retryAt: undefined };
  #user: User | undefined;
  #userPosition: Position | undefined;
  #channels = new Map<string, ChatChannel>();
  /** Channels that the user is in. */
  #listed = new Set<string>();
  /** The channels of a list that is being read, after which others are no longer the user's. */
  #seen: Set<string> | undefined;
  #cursor: string | undefined;
  #hasMore = false;
  #calls = new Map<number, (outcome: Outcome<unknown>) => void>();
  #lastCallId = 0;
  #isStarted = false;
  #resume: Resume = {};
  #users = new Users(this);
  #presence = new PresenceWatch(this);
  #listeners = new Set<(event: EventFrame) => void>();
  readonly #connectionCell = new Cell(() => this.#connection);
  readonly #userCell = new Cell(() => this.#user);
  readonly #channelsCell = new Cell(() => this.#list());
  readonly #unreadCell = new Cell(() => this.#list().reduce((sum, { unread }) => sum + unread, 0));

  /** The state of the connection. */
  readonly connection: Observable<ConnectionState> = this.#connectionCell;
  /** The user, once it is known. */
  readonly user: Observable<User | undefined> = this.#userCell;
  /** The user's channels, last active first. */
  readonly channels: Observable<ChannelInfo[]> = this.#channelsCell;
  /** Number of unread messages in the channels. */
  readonly unread: Observable<number> = this.#unreadCell;

  constructor(settings: ChatSettings) {
    const { link, ...connection } = settings;
    this.#link = link ?? new Connection(connection);
  }

  get userId(): string | undefined {
    return this.#user?.id;
  }

  /** Connects, and stays connected until `close`. Does nothing if it was called before. */
  connect(): this {
    if (this.#isStarted) return this;
    this.#isStarted = true;
    this.#link.start(this.#resume, (updates) => updates.forEach((update) => this.#apply(update)));
    return this;
  }

  /** Ends the client for good. Messages that are not stored fail. */
  close(): void {
    this.command({ type: "close" });
  }

  /** The network or the app is back: tries at once. Browsers do this by themselves. */
  wake(): void {
    this.#link.wake();
  }

  /** Returns a channel, whether the user is in it or not. */
  channel(id: string): ChatChannel {
    let channel = this.#channels.get(id);
    if (!channel) {
      channel = new ChatChannel(id, this, () => this.#listChanged());
      this.#channels.set(id, channel);
    }
    return channel;
  }

  /** Creates a channel. A direct one that exists is returned. */
  async createChannel(fields: CreateChannel): Promise<ChatChannel> {
    const { channel } = await this.call("channel.create", fields);
    return this.channel(channel.id);
  }

  /** Whether the user is in more channels than are listed. */
  get hasMoreChannels(): boolean {
    return this.#hasMore;
  }

  /** Loads a page of further channels. They are subscribed to when they are opened. */
  async loadMoreChannels(): Promise<void> {
    const params = this.#cursor === undefined ? {} : { cursor: this.#cursor };
    const { items, cursor } = await this.call("channel.list", params, "retry");
    this.#cursor = cursor;
    this.#hasMore = cursor !== undefined;
    items.forEach((entry) => this.#enter(entry));
    this.#listChanged();
  }

  /** The profile of a user, which is read when it is first asked for. */
  profile(userId: string): Observable<User | undefined> {
    return this.#users.get(userId);
  }

  /** The presence of a user. It is kept up to date while it is watched. */
  presence(userId: string): Observable<Presence | undefined> {
    return this.#presence.get(userId);
  }

  /** Watches whether users are online. Returns a function that ends it. */
  watchPresence(userIds: string[]): () => void {
    return this.#presence.watch(userIds);
  }

  /** Calls `listener` with each event, after the state has changed. Returns a function to stop. */
  onEvent(listener: (event: EventFrame) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Sends a request. `mode`: `"once"` (default), `"retry"` for one that is safe to repeat, which also
   * waits for a connection, or `"now"` for one that is worth nothing later. Throws a `ChaosError`.
   */
  call<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    mode: CallMode = "once",
  ): Promise<Methods[M]["result"]> {
    return new Promise((resolve, reject) =>
      this.ask(method, params, mode, ({ result, error }) =>
        error ? reject(new ChaosError(error)) : resolve(result),
      ),
    );
  }

  /** @internal */
  ask<M extends keyof Methods>(
    method: M,
    params: Methods[M]["params"],
    mode: CallMode,
    done: (outcome: Outcome<Methods[M]["result"]>) => void,
  ): void {
    const callId = (this.#lastCallId += 1);
    this.#calls.set(callId, done as (outcome: Outcome<unknown>) => void);
    this.command({ type: "call", callId, call: { method, params }, mode });
  }

  /** @internal */
  command(command: Command): void {
    this.#link.command(command);
  }

  #apply(update: Update): void {
    switch (update.type) {
      case "status":
        return this.#setConnection({ status: update.status });
      case "connected":
        return this.#connected(update.connected);
      case "away":
        return this.#setConnection({ why: update.why, retryAt: Date.now() + update.wait });
      case "over":
        return this.#setConnection({ why: update.why, retryAt: undefined });
      case "event":
        return this.#event(update.event);
      case "joined":
        return this.#enter(update.entry);
      case "channels":
        return update.entries.forEach((entry) => this.#enter(entry));
      case "lost":
        if (update.error.code !== "limit_reached") this.#remove(update.channelId);
        return;
      case "gap":
        if (update.channelId === undefined) this.#seen = new Set();
        else this.channel(update.channelId).gap(update.gap === "diverged", update.to);
        return;
      case "messages":
        return this.channel(update.channelId).recover(update.items, update.newest);
      case "recovered":
        if (update.channelId === undefined) return this.#listRecovered(update.error === undefined);
        return this.channel(update.channelId).recovered();
      case "sent":
        return this.channel(update.message.channel_id).stored(update.message);
      case "failed":
        return this.channel(update.channelId).failed(update.messageId, update.error);
      case "reply": {
        const done = this.#calls.get(update.callId);
        this.#calls.delete(update.callId);
        return done?.(update.outcome);
      }
    }
  }

  #setConnection(change: Partial<ConnectionState>): void {
    this.#connection = { ...this.#connection, ...change };
    this.#connectionCell.invalidate();
  }

  /** @internal Returns the state to save for the next start; undefined while incomplete. */
  save(): SavedUser | undefined {
    const [user, position] = [this.#user, this.#userPosition];
    return user && position && !this.#seen ? { user, position } : undefined;
  }

  /** @internal Restores saved state, before it connects. */
  restore({ user, position }: SavedUser, resume: Resume["channels"], entries: Entry[]): void {
    this.#setUser(user);
    this.#userPosition = position;
    this.#resume = { userPosition: position, channels: resume };
    entries.forEach((entry) => this.#enter(entry));
  }

  #setUser(user: User): void {
    this.#user = user;
    this.#users.set(user);
    this.#userCell.invalidate();
  }

  #connected({ user, channels, more, user_position, user_gap }: Connected): void {
    this.#setUser(user);
    if (user_gap || !this.#userPosition) this.#userPosition = user_position;
    this.#hasMore = more;
    this.#setConnection({ why: undefined, retryAt: undefined });
    for (const entry of channels) if (!("error" in entry)) this.#enter(entry);
    this.#presence.connected();
  }

  #event(event: EventFrame): void {
    const { channel_id, data, seq, at } = event;
    if (channel_id === undefined && seq && at) this.#userPosition = [seq, at];
    if (event.event === "channel.deleted") {
      this.#remove(channel_id ?? "");
    } else if (channel_id !== undefined) {
      this.channel(channel_id).apply(event);
    } else if (event.event === "channel.added") {
      this.#enter(data.entry as Entry);
    } else if (event.event === "channel.removed") {
      this.#remove(data.channel_id as string);
    } else if (event.event === "user.updated") {
      this.#setUser(data.user as User);
    } else if (event.event === "presence.changed") {
      const { user_id, ...presence } = data as unknown as PresenceData;
      this.#presence.set(user_id, presence);
    }
    for (const listener of this.#listeners) listener(event);
  }

  #enter(entry: Entry): void {
    this.#listed.add(entry.channel_id);
    this.#seen?.add(entry.channel_id);
    this.channel(entry.channel_id).enter(entry);
  }

  /** The user is in the channels of the list, and in no others. */
  #listRecovered(isComplete: boolean): void {
    const seen = this.#seen;
    this.#seen = undefined;
    if (!seen || !isComplete) return;
    for (const id of this.#listed) if (!seen.has(id)) this.#remove(id);
  }

  #remove(id: string): void {
    this.#listed.delete(id);
    this.#channels.get(id)?.removed();
    this.#listChanged();
  }

  #listChanged(): void {
    this.#channelsCell.invalidate();
    this.#unreadCell.invalidate();
  }

  #list(): ChannelInfo[] {
    const infos = [...this.#listed].map((id) => this.channel(id).info.getSnapshot());
    return infos.sort((a, b) => b.at - a.at);
  }
}
