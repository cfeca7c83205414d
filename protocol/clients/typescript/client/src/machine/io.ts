/** Inputs and outputs of the machine. */

import type { Closed } from "../policy/reconnect.ts";
import type { EventFrame, RequestFrame, ServerFrame } from "../protocol/codec.ts";
import type {
  Connected,
  Entry,
  ErrorBody,
  Gap,
  Message,
  Methods,
  SendMessage,
  Watch,
} from "../protocol/generated.ts";

/** `[seq, at]` of the last durable event that was received of a stream. */
export type Position = [seq: number, at: number];

/** The state of the connection, for the person. */
export type Status = "connecting" | "catching_up" | "online" | "offline" | "closed";

/** The positions from which a client starts, for example after a reload. */
export interface Resume {
  userPosition?: Position | undefined;
  channels?: Record<string, Position> | undefined;
}

/** Settings of the machine. Times are in milliseconds. */
export interface MachineSettings {
  /** Which channels to subscribe to: the user's (default), or none but those that are opened. */
  watch?: Watch;
  /** Positions to start from. */
  resume?: Resume | undefined;
  /** Number of addresses of nodes. Default 1. */
  addresses?: number;
  /** Maximum number of messages that are not acknowledged. Default 1000. */
  outbox?: number;
  /** Upper bound of the first reconnect backoff. Default 500. */
  firstWait?: number;
  /** Upper bound of the reconnect backoff. The server may ask for more. Default 30,000. */
  longestWait?: number;
  /** Time to wait for a reply, and for a connection. Default 10,000. */
  replyTimeout?: number;
  /** Name and version of the application, as `name/1.2`. */
  client?: string;
}

/** The retry mode of a call: until it succeeds or is refused, once, or only while online. */
export type CallMode = "retry" | "once" | "now";

/** A method with its parameters. */
export interface Call {
  method: keyof Methods;
  params: object;
}

/** Returns a checked call. Parameters that are undefined are left out on the wire. */
export function callOf<M extends keyof Methods>(
  method: M,
  params: { [K in keyof Methods[M]["params"]]: Methods[M]["params"][K] | undefined },
): Call {
  return { method, params };
}

/** A request of the application. */
export type Command =
  | { type: "send"; channelId: string; message: SendMessage & { message_id: string } }
  | { type: "call"; callId: number; call: Call; mode: CallMode }
  /** Subscribe to a channel. */
  | { type: "follow"; channelId: string }
  /** Whether a gap of this channel requires its messages to be read. */
  | { type: "track"; channelId: string; isTracked: boolean }
  | { type: "close" };

/** An input of the machine. */
export type Input =
  | Command
  /** The application's answer to the action `token`. */
  | { type: "token"; token: string }
  | { type: "no_token"; message: string; isFinal: boolean }
  | { type: "opened" }
  | { type: "closed"; closed: Closed }
  | { type: "frame"; frame: ServerFrame }
  /** The network or the page is back. */
  | { type: "wake" }
  /** The instant of `due()` has come. */
  | { type: "tick" };

/** An action for the driver. */
export type Action =
  /** Ask the application for a token. One at a time. */
  | { type: "token" }
  /** Open a socket to this address. One at a time. */
  | { type: "open"; address: number }
  | { type: "frame"; frame: RequestFrame }
  /** Close the socket. Nothing of it is an input any more. */
  | { type: "close" };

/** Why there is no session. */
export type Why =
  | { kind: "no_token"; message: string }
  /** The connection ended, or could not be opened. */
  | { kind: "closed"; closed: Closed; refusal?: ErrorBody | undefined }
  | { kind: "draining" }
  /** Nothing was received in time. */
  | { kind: "silent" }
  /** The user's own stream has a gap. The next session says which channels the user is in. */
  | { kind: "missed" }
  /** The application ended the client. */
  | { kind: "asked" };

/** An update of the state. Updates are in order. */
export type Update =
  | { type: "status"; status: Status }
  /** A session began. Missed events follow. */
  | { type: "connected"; connected: Connected }
  /** The session ended, or could not be opened. The next attempt is in `wait` milliseconds. */
  | { type: "away"; why: Why; wait: number }
  | { type: "over"; why: Why }
  /** An event. The durable ones of a stream come in order, each once. */
  | { type: "event"; event: EventFrame }
  /** A channel was subscribed to other than by `connect`. */
  | { type: "joined"; entry: Entry }
  | { type: "lost"; channelId: string; error: ErrorBody }
  /**
   * A channel (or the user's own stream) continues at `to`. `diverged`: its messages are discarded.
   * The missed changes follow as `messages`, or `channels`, until `recovered`.
   */
  | { type: "gap"; channelId?: string; gap: Gap; to: Position }
  /** `newest`: the newest page, with more before it. Otherwise changed messages, in any order. */
  | { type: "messages"; channelId: string; items: Message[]; newest?: { more: boolean } }
  | { type: "channels"; entries: Entry[] }
  | { type: "recovered"; channelId?: string; error?: ErrorBody | undefined }
  | { type: "sent"; message: Message }
  | {
      type: "failed";
      channelId: string;
      messageId: string;
      error: ErrorBody;
      wasSent: boolean;
    }
  | { type: "reply"; callId: number; outcome: Outcome<unknown> }
  /** The server broke a promise of the protocol: an event is repeated, foreign, or behind a hole. */
  | { type: "anomaly"; event: EventFrame };

/** How a request ended. */
export type Outcome<T> =
  { result: T; error?: undefined } | { result?: undefined; error: ErrorBody };

/** State and functions that the parts of the machine share. */
export interface Context {
  /** The time of the current input. */
  readonly now: number;
  /** The server's limit for the items of a page. */
  readonly page: number | undefined;
  random(): number;
  emit(update: Update): void;
  request(method: string, params: object, done: (outcome: Outcome<never>) => void): void;
}
