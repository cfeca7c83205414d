/** The driver of the machine: socket, clock, token provider and the events of the page. */

import { Machine } from "../machine/machine.ts";
import type { Action, Command, Input, MachineSettings, Resume, Update } from "../machine/io.ts";
import { decodeFrame, encodeRequest, type RequestFrame, SUBPROTOCOL } from "../protocol/codec.ts";
import type { Link } from "./link.ts";
import { onPageBack } from "./page.ts";

/** Thrown by a token provider: no later call will succeed, since the user signed out. */
export class SignedOut extends Error {
  override name = "SignedOut";
}

/** The part of the standard WebSocket that is used. */
export interface WebSocketLike {
  binaryType: string;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

export interface ConnectionSettings extends Omit<MachineSettings, "addresses" | "resume"> {
  /** Addresses of the nodes, as `wss://chat.example.com` or with the path `/v1/ws`. */
  url: string | string[];
  /**
   * Returns a user token. Called before the first connection, before a token expires and after it
   * has expired; one call at a time. An exception is tried again later, unless it is `SignedOut`.
   */
  token: () => string | Promise<string>;
  /** The constructor of sockets. Default: that of the platform. Node 20 has none: give that of `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocketLike;
}

/** Maximum delay of `setTimeout`. */
const MAX_TIMEOUT = 2 ** 31 - 1;

/** A connection of one's own. */
export class Connection implements Link {
  readonly #settings: ConnectionSettings;
  readonly #addresses: string[];
  #machine: Machine | undefined;
  #listener: (updates: Update[]) => void = () => {};
  #socket: WebSocketLike | undefined;
  #frameBytes = Infinity;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #inputs: Input[] = [];
  #isRunning = false;
  #stopListening = () => {};

  constructor(settings: ConnectionSettings) {
    this.#settings = settings;
    this.#addresses = [settings.url].flat().map(addressOf);
  }

  start(resume: Resume, listener: (updates: Update[]) => void): void {
    if (this.#machine) return;
    this.#listener = listener;
    const settings = { ...this.#settings, resume, addresses: this.#addresses.length };
    this.#machine = new Machine(settings, now(), Math.random);
    this.#stopListening = onPageBack(() => this.wake());
    this.#input({ type: "tick" });
  }

  command(command: Command): void {
    this.#input(command);
  }

  wake(): void {
    this.#input({ type: "wake" });
  }

  /** Passes an input to the machine. Inputs that its outputs cause wait for their turn. */
  #input(input: Input): void {
    const machine = this.#machine;
    this.#inputs.push(input);
    if (!machine || this.#isRunning) return;
    this.#isRunning = true;
    for (let next = this.#inputs.shift(); next; next = this.#inputs.shift()) {
      machine.handle(next, now());
      const { actions, updates } = machine.take();
      for (const action of actions) this.#act(action);
      for (const update of updates) this.#notice(update);
      if (updates.length > 0) this.#listener(updates);
    }
    this.#isRunning = false;
    clearTimeout(this.#timer);
    const due = machine.due();
    if (due < Infinity) {
      const delay = Math.min(Math.max(due - now(), 0), MAX_TIMEOUT);
      this.#timer = setTimeout(() => this.#input({ type: "tick" }), Math.ceil(delay));
    }
  }

  #notice(update: Update): void {
    if (update.type === "connected") {
      this.#frameBytes = update.connected.limits.frame_bytes || Infinity;
    }
    if (update.type === "over") this.#stopListening();
  }

  #act(action: Action): void {
    switch (action.type) {
      case "open":
        return this.#open(this.#addresses[action.address] ?? "");
      case "frame":
        return this.#send(action.frame);
      case "close": {
        const socket = this.#socket;
        this.#socket = undefined;
        return socket?.close(1000);
      }
      case "token":
        void this.#askForToken();
    }
  }

  #open(address: string): void {
    const ended = (reason: string, code?: number) => {
      this.#socket = undefined;
      this.#input({ type: "closed", closed: { code, reason } });
    };
    const Socket = this.#settings.WebSocket ?? (globalThis.WebSocket as unknown);
    let socket: WebSocketLike;
    try {
      socket = new (Socket as NonNullable<ConnectionSettings["WebSocket"]>)(address, [SUBPROTOCOL]);
    } catch (error) {
      return ended(String(error));
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    const ifCurrent = (handle: (event: never) => void) => (event: never) => {
      if (this.#socket === socket) handle(event);
    };
    socket.onopen = ifCurrent(() => this.#input({ type: "opened" }));
    socket.onmessage = ifCurrent((event: { data: unknown }) => {
      try {
        const frame = decodeFrame(event.data as ArrayBuffer);
        this.#input({ type: "frame", frame });
      } catch (error) {
        socket.close();
        ended(`bad frame: ${error}`);
      }
    });
    socket.onclose = ifCurrent(({ code, reason }: { code: number; reason: string }) => {
      // 1005 and 1006 stand for a connection that ended without a close frame of the server.
      ended(reason, code === 1005 || code === 1006 ? undefined : code);
    });
    // `close` follows, and says more.
    socket.onerror = () => {};
  }

  #send(frame: RequestFrame): void {
    let bytes: Uint8Array<ArrayBuffer>;
    try {
      bytes = encodeRequest(frame);
    } catch (error) {
      return this.#refuse(frame, "bad_request", String(error));
    }
    if (bytes.length > this.#frameBytes) {
      return this.#refuse(frame, "too_large", `${bytes.length} bytes`);
    }
    try {
      this.#socket?.send(bytes);
    } catch {
      // The socket has ended, which `close` reports.
    }
  }

  /** Answers a request for which the server would close the connection. */
  #refuse({ id }: RequestFrame, code: string, message: string): void {
    this.#input({ type: "frame", frame: { id, error: { code, message } } });
  }

  async #askForToken(): Promise<void> {
    try {
      const token = await this.#settings.token();
      this.#input({ type: "token", token });
    } catch (error) {
      const isFinal = error instanceof SignedOut;
      const message = error instanceof Error ? error.message : String(error);
      this.#input({ type: "no_token", message, isFinal });
    }
  }
}

/** The clock of the machine: monotonic, in milliseconds. */
const now = () => performance.now() + 1;

/** Returns the address of the WebSocket: http(s) and a missing path are completed. */
function addressOf(url: string): string {
  const address = url.replace(/^http/, "ws");
  return /^wss?:\/\/[^/]+\/?$/.test(address) ? `${address.replace(/\/$/, "")}/v1/ws` : address;
}
