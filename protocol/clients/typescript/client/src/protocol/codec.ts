/** Frames in MessagePack. */

import { Decoder, Encoder } from "@msgpack/msgpack";

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

interface KeyDecoder {
  canBeCached(byteLength: number): boolean;
  decode(bytes: Uint8Array, offset: number, byteLength: number): string;
}

// The library refuses a map with the key `__proto__`. Anybody may put one into the metadata of a
// message, and the connection of everybody in the channel would break. The key is renamed instead.
const shared = (new Decoder() as unknown as { keyDecoder: KeyDecoder }).keyDecoder;
const keyDecoder: KeyDecoder = {
  canBeCached: (byteLength) => shared.canBeCached(byteLength),
  decode: (bytes, offset, byteLength) => {
    const key = shared.decode(bytes, offset, byteLength);
    return key === "__proto__" ? "__proto" : key;
  },
};

const encoder = new Encoder({ ignoreUndefined: true });
const decoder = new Decoder({ keyDecoder });

/** Encodes a request. Fields that are undefined are left out. */
export function encodeRequest(frame: RequestFrame): Uint8Array<ArrayBuffer> {
  return encoder.encode(frame) as Uint8Array<ArrayBuffer>;
}

/** Decodes a frame of the server. Throws if the bytes are not one. */
export function decodeFrame(bytes: ArrayBuffer | Uint8Array): ServerFrame {
  const frame = decoder.decode(bytes) as Partial<ReplyFrame & EventFrame> | null;
  if (typeof frame === "object" && frame !== null) {
    if (typeof frame.id === "number") {
      return frame as ReplyFrame;
    }
    if (typeof frame.event === "string" && typeof frame.data === "object" && frame.data) {
      return frame as EventFrame;
    }
  }
  throw new Error("the frame is neither a reply nor an event");
}
