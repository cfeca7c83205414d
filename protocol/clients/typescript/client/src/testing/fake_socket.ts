/** A socket to a server in memory. Messages arrive soon, in order, as with a real one. */

import decode from "notepack.io/browser/decode.js";
import encode from "notepack.io/browser/encode.js";

import type { WebSocketLike } from "../connection/connection.ts";
import type { RequestFrame, ServerFrame } from "../protocol/codec.ts";

interface Server {
  isUp(): boolean;
  request(socket: FakeSocket, frame: RequestFrame): void;
  ended(socket: FakeSocket): void;
}

export class FakeSocket implements WebSocketLike {
  binaryType = "blob";
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #server: Server;
  #isOpen = false;
  #isClosed = false;

  constructor(server: Server) {
    this.#server = server;
    queueMicrotask(() => {
      if (this.#isClosed) return;
      if (!server.isUp()) return this.end();
      this.#isOpen = true;
      this.onopen?.({} as never);
    });
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    const frame = decode(data.slice()) as RequestFrame;
    queueMicrotask(() => {
      if (this.#isOpen) this.#server.request(this, frame);
    });
  }

  close(): void {
    this.end(1000);
  }

  /** The server sends a frame. */
  deliver(frame: ServerFrame): void {
    const data = encode(frame);
    queueMicrotask(() => {
      if (this.#isOpen) this.onmessage?.({ data } as never);
    });
  }

  /** The connection ends: without a close frame, or with this code. */
  end(code = 1006, reason = ""): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Earlier messages are read first.
    queueMicrotask(() => {
      this.#isOpen = false;
      this.onclose?.({ code, reason } as never);
    });
    this.#server.ended(this);
  }
}
