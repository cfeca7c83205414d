/**
 * The connection as a state machine without I/O: takes time and inputs, returns actions and updates.
 *
 * Owned here: when to connect, with which token, from which positions; what to send again; what the
 * state learns, in which order. Left to the driver: sockets, clocks, the token provider.
 */

import { Backoff } from "../policy/backoff.ts";
import { elsewhere, hintOf, type Reconnect, reconnectAfter } from "../policy/reconnect.ts";
import type { Closed } from "../policy/reconnect.ts";
import type { EventFrame, RequestFrame, ServerFrame } from "../protocol/codec.ts";
import type { Connected, ErrorBody, Message } from "../protocol/generated.ts";
import {
  type Action,
  callOf,
  type Context,
  type Input,
  type MachineSettings,
  type Outcome,
  type Status,
  type Update,
  type Why,
} from "./io.ts";
import { Jobs } from "./jobs.ts";
import { Renewal } from "./renewal.ts";
import { Requests } from "./requests.ts";
import { Streams } from "./streams.ts";

/** A session that lasted this long resets the reconnect backoff. */
const STABLE_SESSION = 10_000;

/** How long a page that is back waits for the answer to its ping. */
const WAKE_TIMEOUT = 4000;

/** A tick that is later than this means that the process was asleep. */
const LATE_TICK = 2000;

/** How long an attempt that was refused waits for the close code. */
const CLOSE_TIMEOUT = 1000;

const DEFAULTS = {
  watch: "all" as const,
  addresses: 1,
  outbox: 1000,
  firstWait: 500,
  longestWait: 30_000,
  replyTimeout: 10_000,
  client: "chaos-client-js/0.1.0",
};

/** The lanes of messages begin with this. */
const OUTBOX = "send ";

const unavailable = (message: string): ErrorBody => ({ code: "unavailable", message });
const offline = unavailable("no connection");
const ended = unavailable("client ended");
const tooMany = { code: "limit_reached", message: "outbox is full" };

interface Online {
  kind: "online";
  since: number;
  lastReceived: number;
  heartbeat: number;
  /** The instant of a ping that is not answered, or undefined. */
  pingedAt: number | undefined;
  /** When to give up the session if nothing is received until then. */
  giveUpAt: number;
  /** When to leave a node that drains. */
  leaveAt: number;
  renewal: Renewal;
}

type State =
  /** The backoff, not the server's hint, is skipped when the network is back. */
  | { kind: "waiting"; until: number; notBefore: number }
  | { kind: "without_token" }
  | { kind: "connecting"; deadline: number; refusal: ErrorBody | undefined }
  | Online
  | { kind: "over" };

export class Machine implements Context {
  now: number;
  page: number | undefined;
  readonly random: () => number;
  readonly #settings: Required<Omit<MachineSettings, "resume">>;
  #state: State;
  #backoff: Backoff;
  #address: number;
  #token: string | undefined;
  #isAskingForToken = false;
  #status: Status | undefined;
  #hadFailure = false;
  #expectedTick = Infinity;
  #requests = new Requests();
  #streams: Streams;
  #jobs = new Jobs();
  #actions: Action[] = [];
  #updates: Update[] = [];

  /** `random` returns numbers from 0 to 1. */
  constructor(settings: MachineSettings, now: number, random: () => number) {
    this.#settings = { ...DEFAULTS, ...settings };
    this.now = now;
    this.random = random;
    this.#state = { kind: "waiting", until: now, notBefore: now };
    this.#backoff = new Backoff(this.#settings.firstWait, this.#settings.longestWait);
    this.#address = Math.floor(random() * this.#settings.addresses) % this.#settings.addresses;
    this.#streams = new Streams(this, this.#jobs, this.#settings.watch, settings.resume ?? {});
  }

  /** Handles an input. */
  handle(input: Input, now: number): void {
    this.now = now;
    if (this.#state.kind !== "over") this.#handle(input);
    else if (input.type === "send") this.#send(input);
    else if (input.type === "call") this.#call(input);
    if (this.#state.kind === "over") this.#jobs.end(ended);
    this.#advance();
  }

  /** Returns the actions for the driver, and the updates for the state. */
  take(): { actions: Action[]; updates: Update[] } {
    const taken = { actions: this.#actions, updates: this.#updates };
    this.#actions = [];
    this.#updates = [];
    return taken;
  }

  /** When to pass the input `tick`, or Infinity. */
  due(): number {
    const state = this.#state;
    let due = Infinity;
    const consider = (at: number) => {
      if (at > 0 && at < due) due = at;
    };
    for (const at of this.#jobs.deadlines()) consider(at);
    if (state.kind === "waiting") consider(Math.max(state.until, 1));
    if (state.kind === "connecting") consider(state.deadline);
    if (state.kind === "online") {
      const later = (at: number) => {
        if (at > this.now) consider(at);
      };
      consider(state.leaveAt);
      consider(state.renewal.due);
      consider(state.giveUpAt);
      consider(state.pingedAt === undefined ? state.lastReceived + state.heartbeat : 0);
      consider((this.#requests.oldest ?? Infinity) + this.#settings.replyTimeout);
      later(this.#requests.pausedUntil);
      for (const at of this.#jobs.due()) later(at);
    }
    this.#expectedTick = due;
    return due;
  }

  emit(update: Update): void {
    this.#updates.push(update);
  }

  request(method: string, params: object, done: (outcome: Outcome<never>) => void): void {
    const frame = this.#requests.create(this.now, method, params, (outcome) => {
      if (outcome.error?.code === "rate_limited") {
        this.#requests.pause(this.now, outcome.error.retry_after_ms, this.random());
      }
      done(outcome);
    });
    this.#sendFrame(frame);
  }

  #sendFrame(frame: RequestFrame): void {
    this.#actions.push({ type: "frame", frame });
  }

  #handle(input: Input): void {
    switch (input.type) {
      case "token":
        return this.#tokenReceived(input.token);
      case "no_token":
        return this.#noToken(input.message, input.isFinal);
      case "opened":
        return this.#opened();
      case "closed":
        return this.#closed(input.closed);
      case "frame":
        return this.#frame(input.frame);
      case "wake":
        return this.#wake();
      case "tick":
        return this.#tick();
      case "send":
        return this.#send(input);
      case "call":
        return this.#call(input);
      case "follow":
        return this.#streams.follow(input.channelId);
      case "track":
        return this.#streams.track(input.channelId, input.isTracked);
      case "close":
        if (this.#state.kind === "online" || this.#state.kind === "connecting") this.#cut();
        return this.#end({ kind: "asked" });
    }
  }

  #send({ channelId, message }: Extract<Input, { type: "send" }>): void {
    const messageId = message.message_id;
    const failed = (error: ErrorBody, wasSent: boolean) =>
      this.emit({ type: "failed", channelId, messageId, error, wasSent });
    if (this.#jobs.count(OUTBOX) >= this.#settings.outbox) return failed(tooMany, false);
    this.#jobs.add({
      // With several in flight their order would be lost when the first is refused for now.
      lane: OUTBOX + channelId,
      request: () => callOf("message.send", { channel_id: channelId, ...message }),
      done: (result: { message: Message }) => {
        this.emit({ type: "sent", message: result.message });
        return "done";
      },
      failed,
    });
  }

  #call({ callId, call, mode }: Extract<Input, { type: "call" }>): void {
    const reply = (outcome: Outcome<unknown>) => this.emit({ type: "reply", callId, outcome });
    if (mode === "now" && this.#state.kind !== "online") return reply({ error: offline });
    this.#jobs.add({
      isOnce: mode !== "retry",
      deadline: mode === "retry" ? Infinity : this.now + this.#settings.replyTimeout,
      request: () => call,
      done: (result) => {
        reply({ result });
        return "done";
      },
      failed: (error) => reply({ error }),
    });
  }

  /** Sends the requests that may be sent now, and reports the status. */
  #advance(): void {
    const online = this.#state;
    if (online.kind === "online") {
      if (online.leaveAt <= this.now) {
        this.#cut();
        this.#nextAddress();
        this.#disconnect({ kind: "draining" }, "at_once", 0);
      } else {
        if (online.lastReceived + online.heartbeat <= this.now) this.#ping(online);
        online.renewal.advance(
          this,
          () => this.#askForToken(),
          (token) => (this.#token = token),
        );
        if (this.#requests.pausedUntil <= this.now) this.#jobs.advance(this);
      }
    }
    const status = this.#currentStatus();
    if (status !== this.#status) this.emit({ type: "status", status });
    this.#status = status;
  }

  #currentStatus(): Status {
    const { kind } = this.#state;
    if (kind === "over") return "closed";
    if (kind === "online") return this.#streams.isBehind ? "catching_up" : "online";
    return this.#hadFailure ? "offline" : "connecting";
  }

  #tick(): void {
    const state = this.#state;
    this.#jobs.expire(this.now, offline);
    if (state.kind === "waiting" && state.until <= this.now) return this.#connect();
    if (state.kind === "connecting" && state.deadline <= this.now) {
      this.#cut();
      const reason = state.refusal?.message ?? "no answer";
      return this.#failed({ reason }, state.refusal);
    }
    if (state.kind !== "online") return;
    // A page that was frozen has not read its socket: handle the waiting messages first.
    if (this.now > this.#expectedTick + LATE_TICK) {
      this.#requests.restart(this.now);
      return this.#wake();
    }
    if (state.giveUpAt <= this.now) return this.#silent();
    for (;;) {
      const oldest = this.#requests.oldest;
      if (oldest === undefined || oldest + this.#settings.replyTimeout > this.now) return;
      if (state.lastReceived <= oldest) return this.#silent();
      this.#requests.giveUpOldest();
    }
  }

  /** The network or the page is back: tries at once, or finds out soon whether the session lives. */
  #wake(): void {
    const state = this.#state;
    if (state.kind === "waiting") {
      state.until = Math.min(state.until, Math.max(this.now, state.notBefore));
      if (state.until <= this.now) this.#connect();
    } else if (state.kind === "online") {
      this.#ping(state);
      state.giveUpAt = Math.min(state.giveUpAt, this.now + WAKE_TIMEOUT);
    }
  }

  #ping(online: Online): void {
    if (online.pingedAt !== undefined) return;
    online.pingedAt = this.now;
    this.request("ping", {}, () => (online.pingedAt = undefined));
  }

  #silent(): void {
    this.#cut();
    this.#nextAddress();
    this.#disconnect({ kind: "silent" }, "backoff", 0);
  }

  #connect(): void {
    if (this.#token === undefined) {
      this.#state = { kind: "without_token" };
      return this.#askForToken();
    }
    const deadline = this.now + this.#settings.replyTimeout;
    this.#state = { kind: "connecting", deadline, refusal: undefined };
    this.#actions.push({ type: "open", address: this.#address });
  }

  #opened(): void {
    const state = this.#state;
    if (state.kind !== "connecting" || this.#token === undefined) return;
    state.deadline = this.now + this.#settings.replyTimeout;
    const { watch, client } = this.#settings;
    const params = { token: this.#token, watch, client, ...this.#streams.resume() };
    const frame = this.#requests.create(this.now, "connect", params, (outcome) => {
      const { result, error } = outcome as Outcome<Connected>;
      if (result) return this.#connected(result);
      // The close frame that follows says whether to try again.
      state.refusal = error;
      state.deadline = this.now + CLOSE_TIMEOUT;
    });
    this.#sendFrame(frame);
  }

  #connected(connected: Connected): void {
    this.#state = {
      kind: "online",
      since: this.now,
      lastReceived: this.now,
      heartbeat: Math.max(connected.heartbeat_ms, 1000),
      pingedAt: undefined,
      giveUpAt: Infinity,
      leaveAt: Infinity,
      renewal: new Renewal(),
    };
    this.page = connected.limits.page || undefined;
    this.emit({ type: "connected", connected });
    this.#streams.connected(connected);
  }

  #frame(frame: ServerFrame): void {
    const state = this.#state;
    if (state.kind === "online") {
      state.lastReceived = this.now;
      state.giveUpAt = Infinity;
    } else if (state.kind !== "connecting") {
      return;
    }
    if ("id" in frame) return this.#requests.reply(frame);
    if (state.kind === "online") this.#event(frame, state);
  }

  #event(event: EventFrame, online: Online): void {
    const { seq, at, data } = event;
    if (seq !== undefined && at !== undefined) return this.#streams.event(event, [seq, at]);
    switch (event.event) {
      case "channel.gap":
        if (event.channel_id !== undefined) return this.#streams.gapEvent(event);
        // The session may lack subscriptions.
        this.#cut();
        return this.#disconnect({ kind: "missed" }, "at_once", 0);
      case "token.expiring":
        // The token is not used for another session.
        this.#token = undefined;
        return online.renewal.warned(this, Number(data.expires_at));
      case "server.draining": {
        const wait = this.random() * (Number(data.reconnect_after_ms) || 0);
        online.leaveAt = Math.min(online.leaveAt, this.now + wait);
        return;
      }
      default:
        this.emit({ type: "event", event });
    }
  }

  #closed(closed: Closed): void {
    const state = this.#state;
    if (state.kind === "connecting") return this.#failed(closed, state.refusal);
    if (state.kind !== "online") return;
    // A node that drains spreads the reconnects of its clients.
    const spread = state.leaveAt === Infinity ? 0 : Math.max(state.leaveAt - this.now, 0);
    if (elsewhere(closed)) this.#nextAddress();
    const hint = Math.max(hintOf(closed), spread);
    this.#disconnect({ kind: "closed", closed }, reconnectAfter(closed), hint);
  }

  #failed(closed: Closed, refusal: ErrorBody | undefined): void {
    if (elsewhere(closed)) this.#nextAddress();
    const why: Why = { kind: "closed", closed, refusal };
    this.#disconnect(why, reconnectAfter(closed, refusal), hintOf(closed, refusal));
  }

  /** Waits for the next attempt, or ends. */
  #disconnect(why: Why, reconnect: Reconnect, hint: number): void {
    const state = this.#state;
    // A session that ended is first tried again: only then it is offline.
    this.#hadFailure = state.kind !== "online";
    if (state.kind === "online") {
      if (this.now - state.since >= STABLE_SESSION) this.#backoff.reset();
      this.#token = state.renewal.unsent ?? this.#token;
    }
    this.#requests.disconnected();
    this.#jobs.disconnected(unavailable("connection ended"));
    this.#streams.disconnected();
    if (reconnect === "never") return this.#end(why);
    if (reconnect === "new_token") this.#token = undefined;
    const isFirst = this.#backoff.isFresh;
    const backoff = this.#backoff.wait(this.random());
    // The backoff is added to the hint, which other clients got too.
    const wait = hint + (isFirst && reconnect !== "backoff" ? 0 : backoff);
    this.#state = { kind: "waiting", until: this.now + wait, notBefore: this.now + hint };
    this.emit({ type: "away", why, wait });
  }

  #end(why: Why): void {
    this.#state = { kind: "over" };
    this.#requests.disconnected();
    this.#jobs.end(ended);
    this.emit({ type: "over", why });
  }

  /** Closes the socket. Nothing of it is an input any more. */
  #cut(): void {
    this.#actions.push({ type: "close" });
  }

  #nextAddress(): void {
    this.#address = (this.#address + 1) % this.#settings.addresses;
  }

  #askForToken(): void {
    if (this.#isAskingForToken) return;
    this.#isAskingForToken = true;
    this.#actions.push({ type: "token" });
  }

  #tokenReceived(token: string): void {
    this.#isAskingForToken = false;
    const state = this.#state;
    if (state.kind === "online" && state.renewal.received(this, token, false)) return;
    // Otherwise a session that has ended meanwhile asked for it.
    this.#token = token;
    if (state.kind === "without_token") this.#connect();
  }

  #noToken(message: string, isFinal: boolean): void {
    this.#isAskingForToken = false;
    const state = this.#state;
    if (state.kind === "online") state.renewal.received(this, undefined, isFinal);
    if (state.kind === "without_token") {
      this.#disconnect({ kind: "no_token", message }, isFinal ? "never" : "backoff", 0);
    }
  }
}
