/** A real node, and clients of it. */

import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { WebSocket } from "ws";

import { Chat, type ChatSettings, type WebSocketLike } from "../../src/index.ts";

const built = fileURLToPath(new URL("../../../../../../target/debug/chaos", import.meta.url));

/** The program: `CHAOS_BIN`, or what `cargo build` has made. */
export const program = process.env.CHAOS_BIN ?? built;

/** Whether there is a program. If `CHAOS_BIN` names none, the tests fail instead of being skipped. */
export const hasProgram = process.env.CHAOS_BIN !== undefined || existsSync(program);

/** An address at which nothing listens. */
const UNREACHABLE = "ws://127.0.0.1:9/v1/ws";

export class Node {
  readonly #folder = mkdtempSync(join(tmpdir(), "chaos-ts-"));
  readonly #options: string[];
  #port = 0;
  #process: ChildProcess | undefined;
  #key = "";
  /** Sockets of clients, to cut them. */
  readonly sockets = new Set<WebSocket>();
  /** Users who cannot reach the node. */
  readonly blocked = new Set<string>();
  readonly #chats: Chat[] = [];

  constructor(options: string[] = []) {
    this.#options = options;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    this.#port ||= await freePort();
    const listen = `127.0.0.1:${this.#port}`;
    const args = ["--listen", listen, "--data", this.#folder, "--demo", "off", "--log", "error"];
    this.#process = spawn(program, [...args, ...this.#options], { stdio: "inherit" });
    let error: unknown;
    this.#process.once("error", (cause) => (error = cause));
    await until(async () => {
      if (error) throw error;
      const answer = await fetch(`${this.url}/readyz`).catch(() => undefined);
      return answer?.ok === true;
    });
    if (this.#key === "") await this.#makeApp();
  }

  /** Ends the node at once, as a crash does, or lets it drain. */
  async kill(signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
    const process = this.#process;
    if (!process || process.exitCode !== null || process.signalCode !== null) return;
    const ended = new Promise((resolve) => process.once("exit", resolve));
    process.kill(signal);
    await ended;
  }

  async stop(): Promise<void> {
    this.#chats.forEach((chat) => chat.close());
    await this.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Cuts the connections of all clients. */
  cut(): void {
    for (const socket of this.sockets) socket.terminate();
    this.sockets.clear();
  }

  /** A request with the app's key, or another credential. */
  async api<T = Record<string, never>>(
    method: string,
    path: string,
    body?: object,
    credential = this.#key,
  ): Promise<T> {
    const answer = await fetch(`${this.url}/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${credential}`, "content-type": "application/json" },
      ...(body && { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return (text === "" ? {} : JSON.parse(text)) as T;
  }

  async token(user: string, expires_in = 3600): Promise<string> {
    const path = `/users/${user}/tokens`;
    const { token } = await this.api<{ token: string }>("POST", path, { expires_in });
    return token;
  }

  /** A client of this user, which is ended with the node. */
  chat(user: string, settings: Partial<ChatSettings> = {}): Chat {
    const { blocked, sockets } = this;
    class Socket extends WebSocket {
      constructor(url: string, protocols: string[]) {
        super(blocked.has(user) ? UNREACHABLE : url, protocols);
        sockets.add(this);
        this.once("close", () => sockets.delete(this));
      }
    }
    const chat = new Chat({
      url: this.url,
      token: () => this.token(user),
      WebSocket: Socket as unknown as new (url: string, protocols: string[]) => WebSocketLike,
      ...settings,
    });
    this.#chats.push(chat);
    return chat.connect();
  }

  async #makeApp(): Promise<void> {
    const admin = readFileSync(join(this.#folder, "admin-key"), "utf8").trim();
    interface Made {
      organization: { id: string };
      key: { secret: string };
    }
    const body = { name: "Acme", email: "team@acme.example" };
    const made = await this.api<Made>("POST", "/organizations", body, admin);
    const apps = `/organizations/${made.organization.id}/apps`;
    const { secret } = made.key;
    const app = await this.api<{ id: string }>("POST", apps, { name: "Test" }, secret);
    const keys = `${apps}/${app.id}/keys`;
    const key = await this.api<{ secret: string }>("POST", keys, { environment: "live" }, secret);
    this.#key = key.secret;
  }
}

/** Waits for a condition, with a deadline. */
export async function until(
  condition: () => unknown | Promise<unknown>,
  what = String(condition),
): Promise<void> {
  for (const end = Date.now() + 30_000; Date.now() < end;) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`in vain: ${what}`);
}

function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
