/** One connection for all tabs of a page. */

import { Connection, type ConnectionSettings } from "../connection/connection.ts";
import type { Link } from "../connection/link.ts";
import type { Command, Resume, Update } from "../machine/io.ts";
import { TabMemory } from "./follower.ts";
import { Leader } from "./leader.ts";
import type { TabChannel, TabMessage } from "./messages.ts";

/** The part of the Web Locks API that is used. */
export interface TabLocks {
  request(name: string, held: () => Promise<void>): Promise<unknown>;
}

export interface SharedSettings extends ConnectionSettings {
  /** The tabs with this name share a connection. It names the user, so that users stay apart. */
  name: string;
  /** Default: those of the browser. */
  locks?: TabLocks;
  channel?: (name: string) => TabChannel;
}

/**
 * Returns a connection for the setting `link` that the tabs of this origin share: one tab has it, and
 * when that is closed another one continues it. Without Web Locks or BroadcastChannel each tab has
 * its own.
 */
export function sharedConnection(settings: SharedSettings): Link {
  const { name, locks = navigatorLocks(), channel = broadcastChannel(), ...connection } = settings;
  if (!locks || !channel) return new Connection(connection);
  return new SharedLink(`chaos ${name}`, () => new Connection(connection), locks, channel);
}

function navigatorLocks(): TabLocks | undefined {
  return (globalThis.navigator as { locks?: TabLocks } | undefined)?.locks;
}

function broadcastChannel(): ((name: string) => TabChannel) | undefined {
  const Channel = globalThis.BroadcastChannel;
  return Channel && ((name) => new Channel(name) as unknown as TabChannel);
}

class SharedLink implements Link {
  readonly #name: string;
  readonly #connect: () => Link;
  readonly #locks: TabLocks;
  readonly #open: (name: string) => TabChannel;
  readonly #tab = Math.random().toString(36).slice(2);
  readonly #memory = new TabMemory();
  #channel: TabChannel | undefined;
  #leader: Leader | undefined;
  #listener: (updates: Update[]) => void = () => {};
  /** Updates that wait for the state that they follow. Undefined: none do. */
  #waiting: Update[] | undefined = [];
  #release = () => {};
  #isClosed = false;

  constructor(
    name: string,
    connect: () => Link,
    locks: TabLocks,
    open: (name: string) => TabChannel,
  ) {
    this.#name = name;
    this.#connect = connect;
    this.#locks = locks;
    this.#open = open;
  }

  start(resume: Resume, listener: (updates: Update[]) => void): void {
    this.#listener = listener;
    this.#memory.resumed(resume);
    this.#channel = this.#open(this.#name);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    this.#hello();
    globalThis.addEventListener?.("pagehide", () => this.#post({ type: "bye", from: this.#tab }));
    void this.#locks.request(this.#name, async () => {
      if (this.#isClosed) return;
      this.#lead();
      await new Promise<void>((release) => (this.#release = release));
    });
  }

  command(command: Command): void {
    if (command.type === "close") return this.#close();
    this.#memory.commanded(command);
    if (this.#isClosed) return this.#listener(this.#memory.failAll());
    if (this.#leader) this.#leader.command(this.#tab, command);
    // Without a channel yet it is handed over with the first words to the leader.
    else this.#post({ type: "command", from: this.#tab, command });
  }

  wake(): void {
    if (this.#leader) this.#leader.wake();
    else this.#post({ type: "wake" });
  }

  #post(message: TabMessage): void {
    this.#channel?.postMessage(message);
  }

  #hello(): void {
    this.#waiting = [];
    const { commands, failed } = this.#memory.handOver();
    const { resume } = this.#memory;
    this.#post({ type: "hello", from: this.#tab, commands, resume });
    if (failed.length > 0) this.#listener(failed);
  }

  /** The tab has the connection now, and continues where the one before it has stopped. */
  #lead(): void {
    this.#leader = new Leader(this.#connect(), this.#memory, (tab, updates, isState = false) => {
      if (updates.length === 0) return;
      if (tab === undefined) this.#post({ type: "updates", updates });
      else if (tab !== this.#tab)
        this.#post({ type: isState ? "state" : "replies", to: tab, updates });
      if (tab === undefined || tab === this.#tab) this.#deliver(updates);
    });
    this.#waiting = undefined;
    const { commands, failed } = this.#memory.handOver();
    if (failed.length > 0) this.#listener(failed);
    for (const command of commands) this.#leader.command(this.#tab, command);
    this.#leader.start();
    this.#post({ type: "leader" });
  }

  #receive(message: TabMessage): void {
    if (this.#leader) return this.#leader.handle(message);
    switch (message.type) {
      case "leader":
        return this.#hello();
      case "updates":
        // A new session brings the whole state.
        if (message.updates.some(({ type }) => type === "connected")) this.#waiting = undefined;
        if (this.#waiting) this.#waiting.push(...message.updates);
        else this.#deliver(message.updates);
        return;
      case "state":
      case "replies": {
        if (message.to !== this.#tab) return;
        const waiting = message.type === "state" ? (this.#waiting ?? []) : [];
        if (message.type === "state") this.#waiting = undefined;
        return this.#deliver([...message.updates, ...waiting]);
      }
    }
  }

  #deliver(updates: Update[]): void {
    updates.forEach((update) => this.#memory.updated(update));
    this.#listener(updates);
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    if (this.#leader) {
      this.#leader.close();
      this.#release();
    }
    this.#post({ type: "bye", from: this.#tab });
    this.#channel?.close();
    this.#listener([
      ...this.#memory.failAll(),
      { type: "status", status: "closed" },
      { type: "over", why: { kind: "asked" } },
    ]);
  }
}
