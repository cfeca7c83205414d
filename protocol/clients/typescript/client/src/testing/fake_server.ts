/**
 * A server in memory, for tests of applications: `new Chat({ url: "ws://fake", token: () => "alice",
 * WebSocket: server.WebSocket })`. A token is the id of its user.
 *
 * It keeps channels, messages and logs, and answers the requests of the client as a node does. It
 * has no permissions and no limits.
 */

import type { WebSocketLike } from "../connection/connection.ts";
import type { EventFrame, RequestFrame } from "../protocol/codec.ts";
import type { Entry, ErrorBody, Message, Presence, User } from "../protocol/generated.ts";
import { FakeChannel } from "./fake_channel.ts";
import { FakeSocket } from "./fake_socket.ts";

interface Session {
  socket: FakeSocket;
  userId: string;
  channels: Set<string>;
  watched: Set<string>;
}

type Params = Record<string, never> & {
  channel_id: string;
  message_id: string;
  user_ids: string[];
};

class Refusal extends Error {
  readonly body: ErrorBody;

  constructor(code: string, details: Partial<ErrorBody> = {}) {
    super(code);
    this.body = { code, message: code, ...details };
  }
}

export class FakeServer {
  /** The constructor for the setting `WebSocket`. */
  readonly WebSocket: new (url: string, protocols: string[]) => WebSocketLike;
  readonly channels = new Map<string, FakeChannel>();
  readonly users = new Map<string, User>();
  /** Sockets cannot be opened. */
  isDown = false;
  /** Is asked before each request: an error refuses it, `"drop"` ends the connection before it is
   * carried out, and `"lose"` afterwards, so that its reply is lost. */
  onRequest: (frame: RequestFrame) => ErrorBody | "drop" | "lose" | undefined = () => undefined;
  /** Number of received requests, by method. */
  readonly requests: Record<string, number> = {};
  #sessions = new Map<FakeSocket, Session>();
  #streams = new Map<string, { position: [number, number]; events: EventFrame[] }>();
  #clock = 1_767_225_600_000;

  constructor() {
    const server = this;
    this.WebSocket = class extends FakeSocket {
      constructor() {
        super({
          isUp: () => !server.isDown,
          request: (socket, frame) => server.#request(socket, frame),
          ended: (socket) => server.#ended(socket),
        });
      }
    };
  }

  /** The server's clock. */
  now = (): number => (this.#clock += 1);

  /** Makes users. */
  addUsers(...ids: string[]): void {
    for (const id of ids) {
      const user = { id, username: id, bot: false, metadata: {}, created_at: this.now() };
      if (!this.users.has(id)) this.users.set(id, user);
    }
  }

  /** Makes a channel with these participants. */
  addChannel(id: string, participants: string[], name = id): FakeChannel {
    this.addUsers(...participants);
    const channel = new FakeChannel(id, name, this.now, (event) => this.#publish(event));
    this.channels.set(id, channel);
    participants.forEach((userId) => this.addParticipant(id, userId));
    return channel;
  }

  addParticipant(channelId: string, userId: string): void {
    const channel = this.#channel(channelId);
    channel.join(userId);
    const entry = channel.entry(userId);
    this.#own(userId, "channel.added", { entry });
    for (const session of this.#sessionsOf(userId)) session.channels.add(channelId);
  }

  removeParticipant(channelId: string, userId: string): void {
    for (const session of this.#sessionsOf(userId)) session.channels.delete(channelId);
    this.#channel(channelId).leave(userId);
    this.#own(userId, "channel.removed", { channel_id: channelId });
  }

  /** Sends a message as this user. */
  send(channelId: string, senderId: string, text: string, fields: Partial<Message> = {}): Message {
    return this.#channel(channelId).send(senderId, { text, ...fields });
  }

  /** Ends all connections: without a close frame, or with this code. */
  cut(code?: number, reason = ""): void {
    for (const socket of [...this.#sessions.keys()]) socket.end(code, reason);
  }

  /** Sends a passing event to all who should get it. */
  pass(event: string, data: object, channelId?: string, exceptUser?: string): void {
    const frame: EventFrame = { event, data: data as Record<string, unknown> };
    if (channelId !== undefined) frame.channel_id = channelId;
    for (const { socket, userId, channels } of this.#sessions.values()) {
      if (userId === exceptUser) continue;
      if (channelId === undefined || channels.has(channelId)) socket.deliver(frame);
    }
  }

  #sessionsOf(userId: string): Session[] {
    return [...this.#sessions.values()].filter((session) => session.userId === userId);
  }

  #channel(id: string): FakeChannel {
    const channel = this.channels.get(id);
    if (!channel) throw new Refusal("not_found");
    return channel;
  }

  #publish(event: EventFrame): void {
    for (const { socket, channels } of this.#sessions.values()) {
      if (channels.has(event.channel_id ?? "")) socket.deliver(event);
    }
  }

  /** Appends an event to a user's own stream. */
  #own(userId: string, event: string, data: object): void {
    const stream = this.#stream(userId);
    stream.position = [stream.position[0] + 1, this.now()];
    const [seq, at] = stream.position;
    const frame = { event, seq, at, data: data as Record<string, unknown> };
    stream.events.push(frame);
    for (const { socket } of this.#sessionsOf(userId)) socket.deliver(frame);
  }

  #stream(userId: string) {
    let stream = this.#streams.get(userId);
    if (!stream) this.#streams.set(userId, (stream = { position: [0, this.now()], events: [] }));
    return stream;
  }

  #ended(socket: FakeSocket): void {
    const session = this.#sessions.get(socket);
    this.#sessions.delete(socket);
    if (session && this.#sessionsOf(session.userId).length === 0) {
      this.#tellPresence(session.userId);
    }
  }

  #presence(userId: string): Presence {
    return { online: this.#sessionsOf(userId).length > 0, at: this.now() };
  }

  #tellPresence(userId: string): void {
    const frame = {
      event: "presence.changed",
      data: { user_id: userId, ...this.#presence(userId) },
    };
    for (const { socket, watched } of this.#sessions.values()) {
      if (watched.has(userId)) socket.deliver(frame);
    }
  }

  #request(socket: FakeSocket, frame: RequestFrame): void {
    const { id, method, params } = frame;
    this.requests[method] = (this.requests[method] ?? 0) + 1;
    const fault = this.onRequest(frame);
    if (fault === "drop") return socket.end();
    if (typeof fault === "object") return socket.deliver({ id, error: fault });
    const later: EventFrame[] = [];
    try {
      const result = this.#perform(socket, method, params as Params, later);
      if (fault === "lose") return socket.end();
      socket.deliver({ id, result });
      later.forEach((event) => socket.deliver(event));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      socket.deliver({ id, error: error.body });
      if (method === "connect") socket.end(error.body.code === "unauthenticated" ? 4002 : 4012);
    }
  }

  #perform(socket: FakeSocket, method: string, params: Params, later: EventFrame[]): object {
    if (method === "connect") return this.#connect(socket, params, later);
    const session = this.#sessions.get(socket);
    if (!session) throw new Refusal("bad_request");
    const { userId } = session;
    switch (method) {
      case "ping":
        return { at: this.now() };
      case "token.refresh":
        return { expires_at: this.now() + 3_600_000 };
      case "channel.subscribe":
        return { channels: this.#subscribe(session, params.channels ?? {}, later) };
      case "channel.list":
        return { items: this.#channelsOf(userId).map((channel) => channel.entry(userId)) };
      case "channel.create": {
        const id = `chn_${this.now().toString(16).padStart(16, "0")}`;
        const { name, participant_ids = [] } = params as {
          name?: string;
          participant_ids?: string[];
        };
        return { channel: this.addChannel(id, [userId, ...participant_ids], name).channel };
      }
      case "presence.watch":
        session.watched = new Set(params.user_ids);
        return {
          presence: Object.fromEntries(params.user_ids.map((id) => [id, this.#presence(id)])),
        };
      case "user.get":
        return { items: params.user_ids.flatMap((id) => this.users.get(id) ?? []) };
      case "user.update": {
        const user = { ...(this.users.get(userId) as User), ...(params as object) };
        this.users.set(userId, user);
        this.#own(userId, "user.updated", { user });
        return { user };
      }
      case "typing": {
        const data = { user_id: userId, typing: params.typing };
        this.pass("typing", data, params.channel_id, userId);
        return {};
      }
      case "read.mark":
      case "read.unmark": {
        const data = this.#channel(params.channel_id).mark(userId, params.number ?? 0, method);
        this.pass("read.marked", { user_id: userId, ...data }, params.channel_id);
        return { read: data.number };
      }
    }
    const result = this.#channel(params.channel_id).perform(userId, method, params);
    if (!result)
      throw new Refusal(
        this.#channel(params.channel_id).knows(method) ? "not_found" : "unsupported",
      );
    return result;
  }

  #connect(socket: FakeSocket, params: Params, later: EventFrame[]): object {
    const userId = String(params.token);
    const user = this.users.get(userId);
    if (!user) throw new Refusal("unauthenticated");
    const session = { socket, userId, channels: new Set<string>(), watched: new Set<string>() };
    const isFirst = this.#sessionsOf(userId).length === 0;
    this.#sessions.set(socket, session);
    const { position, events } = this.#stream(userId);
    const from = params.user_position as [number, number] | undefined;
    const gap = from && from[0] > position[0] ? { user_gap: "diverged" } : {};
    if (from && !gap.user_gap) later.push(...events.filter(({ seq = 0 }) => seq > from[0]));
    const resume = { ...(params.resume as unknown as object) } as Record<
      string,
      [] | [number, number]
    >;
    for (const { id } of params.watch === "none" ? [] : this.#channelsOf(userId)) resume[id] ??= [];
    const channels = this.#subscribe(session, resume, later);
    if (isFirst) this.#tellPresence(userId);
    return {
      session_id: "ses_0000000000000001",
      user,
      app_id: "app_0000000000000001",
      environment: "test",
      features: [],
      heartbeat_ms: 25_000,
      limits: { page: 200, frame_bytes: 65_536 },
      user_position: position,
      ...gap,
      channels,
      more: false,
    };
  }

  #channelsOf(userId: string): FakeChannel[] {
    return [...this.channels.values()].filter((channel) => channel.participants.has(userId));
  }

  #subscribe(
    session: Session,
    cursors: Record<string, [] | [number, number]>,
    later: EventFrame[],
  ): Array<Entry | { channel_id: string; error: ErrorBody }> {
    return Object.entries(cursors).map(([id, cursor]) => {
      const channel = this.channels.get(id);
      if (!channel?.participants.has(session.userId)) {
        return { channel_id: id, error: new Refusal("not_found").body };
      }
      session.channels.add(id);
      const { gap, events } = channel.after(cursor);
      later.push(...events);
      return { ...channel.entry(session.userId), ...(gap && { gap }) };
    });
  }
}
