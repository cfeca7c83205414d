import { expect } from "vitest";

import type {
  Action,
  Command,
  Input,
  MachineSettings,
  Status,
  Update,
} from "../../src/machine/io.ts";
import { Machine } from "../../src/machine/machine.ts";
import type { RequestFrame, ServerFrame } from "../../src/protocol/codec.ts";
import type { Connected, Entry, ErrorBody, Message } from "../../src/protocol/generated.ts";

export const entry = (channel_id: string, seq: number, fields: Partial<Entry> = {}): Entry => ({
  channel_id,
  channel: { id: channel_id, type: "group", metadata: {}, created_at: 1, participant_count: 2 },
  role: "member",
  seq,
  at: seq * 10,
  number: 0,
  read: 0,
  ...fields,
});

export const message = (
  channel_id: string,
  number: number,
  fields: Partial<Message> = {},
): Message => ({
  id: `msg_${number.toString(16).padStart(16, "0")}`,
  channel_id,
  number,
  seq: number,
  sender_id: "bob",
  kind: "text",
  text: `text ${number}`,
  attachments: [],
  mention_ids: [],
  reactions: {},
  metadata: {},
  created_at: number * 10,
  ...fields,
});

export const connected = (fields: Partial<Connected> = {}): Connected => ({
  session_id: "ses_0000000000000001",
  user: { id: "alice", bot: false, metadata: {}, created_at: 1 },
  app_id: "app_0000000000000001",
  environment: "live",
  features: [],
  heartbeat_ms: 25_000,
  limits: { page: 200 },
  user_position: [3, 30],
  channels: [],
  more: false,
  ...fields,
});

/** A machine with a scripted server, and time that a test moves. */
export class Peer {
  now = 1000;
  random = 0.5;
  readonly machine: Machine;
  actions: Action[] = [];
  updates: Update[] = [];
  status: Status | undefined;
  tokens = 0;

  constructor(settings: MachineSettings = {}) {
    this.machine = new Machine(settings, this.now, () => this.random);
  }

  input(input: Input): void {
    this.machine.handle(input, this.now);
    const { actions, updates } = this.machine.take();
    this.actions.push(...actions);
    this.updates.push(...updates);
    for (const update of updates) if (update.type === "status") this.status = update.status;
  }

  command(command: Command): void {
    this.input(command);
  }

  /** Lets time pass, with a tick whenever one is due. */
  pass(milliseconds: number): void {
    const until = this.now + milliseconds;
    for (let due = this.machine.due(); due <= until; due = this.machine.due()) {
      this.now = Math.max(this.now, due);
      this.input({ type: "tick" });
    }
    this.now = until;
  }

  /** Takes the first action of this kind. */
  take<T extends Action["type"]>(type: T): Extract<Action, { type: T }> {
    const index = this.actions.findIndex((action) => action.type === type);
    expect(index, `an action ${type} among ${JSON.stringify(this.actions)}`).toBeGreaterThanOrEqual(
      0,
    );
    return this.actions.splice(index, 1)[0] as Extract<Action, { type: T }>;
  }

  has(type: Action["type"]): boolean {
    return this.actions.some((action) => action.type === type);
  }

  /** Takes the first request with this method. */
  request(method: string): RequestFrame & { params: Record<string, unknown> } {
    const is = (action: Action) => action.type === "frame" && action.frame.method === method;
    const index = this.actions.findIndex(is);
    expect(
      index,
      `a request ${method} among ${JSON.stringify(this.actions)}`,
    ).toBeGreaterThanOrEqual(0);
    const [action] = this.actions.splice(index, 1);
    return (action as { frame: RequestFrame & { params: Record<string, unknown> } }).frame;
  }

  requests(method: string): number {
    return this.actions.filter((a) => a.type === "frame" && a.frame.method === method).length;
  }

  frame(frame: ServerFrame): void {
    this.input({ type: "frame", frame });
  }

  reply(request: RequestFrame, result: object): void {
    this.frame({ id: request.id, result });
  }

  refuse(request: RequestFrame, error: Partial<ErrorBody> & { code: string }): void {
    this.frame({ id: request.id, error: { message: error.code, ...error } });
  }

  event(
    event: string,
    channel_id: string | undefined,
    seq: number,
    data: object,
    at = seq * 10,
  ): void {
    const stream = channel_id === undefined ? {} : { channel_id };
    this.frame({ event, ...stream, seq, at, data: data as Record<string, unknown> });
  }

  created(channelId: string, seq: number, number = seq): void {
    this.event("message.created", channelId, seq, { message: message(channelId, number, { seq }) });
  }

  passing(event: string, data: object, channel_id?: string): void {
    const stream = channel_id === undefined ? {} : { channel_id };
    this.frame({ event, ...stream, data: data as Record<string, unknown> });
  }

  closed(code?: number, reason = ""): void {
    this.actions = this.actions.filter((action) => action.type !== "frame");
    this.input({ type: "closed", closed: { code, reason } });
  }

  token(): void {
    this.take("token");
    this.tokens += 1;
    this.input({ type: "token", token: `token ${this.tokens}` });
  }

  /** Answers everything up to a session, and returns the parameters of `connect`. */
  connect(fields: Partial<Connected> = {}): Record<string, unknown> {
    if (!this.has("open") && !this.has("token")) this.pass(this.machine.due() - this.now);
    if (this.has("token")) this.token();
    this.take("open");
    this.input({ type: "opened" });
    const request = this.request("connect");
    this.reply(request, connected(fields));
    return request.params;
  }

  /** Takes the updates of these kinds. */
  seen<T extends Update["type"]>(...types: T[]): Array<Extract<Update, { type: T }>> {
    const is = (update: Update) => (types as string[]).includes(update.type);
    const seen = this.updates.filter(is);
    this.updates = this.updates.filter((update) => !is(update));
    return seen as Array<Extract<Update, { type: T }>>;
  }

  events(): Array<[string, number | undefined]> {
    return this.seen("event").map(({ event }) => [event.event, event.seq]);
  }
}
