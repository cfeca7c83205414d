/** Frames in MessagePack. */

import decode from "notepack.io/browser/decode.js";
import encode from "notepack.io/browser/encode.js";

import type { ErrorBody } from "./generated.ts";

/** A request of the client. */
export interface RequestFrame {
  id: number;
  method: string;
  params: object;
}

/** The reply to a request. */
export interface ReplyFrame {
  id: number;
  result?: unknown;
  error?: ErrorBody;
}

/** An event. Durable ones have `seq` and `at`. */
export interface EventFrame {
  event: string;
  channel_id?: string;
  seq?: number;
  at?: number;
  data: Record<string, unknown>;
}

/** A frame of the server. */
export type ServerFrame = ReplyFrame | EventFrame;

/** The sub-protocol of MessagePack. */
export const SUBPROTOCOL = "chaos.v1.msgpack";

/** Encodes a request. Throws if it has what JSON has not: the server would close the connection. */
export function encodeRequest(frame: RequestFrame): Uint8Array<ArrayBuffer> {
  const json = JSON.stringify(frame, (_, value: unknown) => {
    // Beyond this the codec changes integers.
    if (typeof value === "number" && !(Math.abs(value) <= Number.MAX_SAFE_INTEGER)) {
      throw new RangeError(`${value} cannot be sent`);
    }
    return value;
  });
  // Half a surrogate pair, as of an emoji that was cut, is not UTF-8. It is always escaped.
  const isUtf8 = json.replace(/\\(?:\\|ud[89a-f]..)/g, (found) =>
    found[1] === "u" ? "\\ufffd" : found,
  );
  return new Uint8Array(encode(JSON.parse(isUtf8)));
}

/** Decodes a frame of the server. Throws if the bytes are not one. */
export function decodeFrame(bytes: ArrayBuffer | Uint8Array<ArrayBuffer>): ServerFrame {
  const frame = decode(bytes) as Partial<ReplyFrame & EventFrame> | null;
  if (typeof frame === "object" && frame !== null) {
    clean(frame);
    if (typeof frame.id === "number") return frame as ReplyFrame;
    if (typeof frame.event === "string" && typeof frame.data === "object" && frame.data) {
      return frame as EventFrame;
    }
  }
  throw new Error("neither a reply nor an event");
}

/**
 * Undoes two things that the codec does. It assigns the key `__proto__`, which anybody may put into
 * the metadata of a message: the object would have properties that nobody sees. And it joins a
 * string of single characters, which take 20 bytes each until something looks at the whole string.
 */
function clean(value: unknown): void {
  if (typeof value === "string") /^\0/.test(value);
  if (typeof value !== "object" || value === null) return;
  if (!Array.isArray(value) && Object.getPrototypeOf(value) !== Object.prototype) {
    Object.setPrototypeOf(value, Object.prototype);
  }
  Object.values(value).forEach(clean);
}
