/** The tab that has the connection. */

import type { Link } from "../connection/link.ts";
import { type Command, callOf, type Resume, type Update } from "../machine/io.ts";
import type { Connected, EntryList } from "../protocol/generated.ts";
import type { TabMemory } from "./follower.ts";
import type { TabMessage } from "./messages.ts";

/** Number of users that a session may watch. */
const MAX_WATCHED = 100;

/** Tells one tab (the leader's own included) or all of them. */
export type SendUpdates = (tab: string | undefined, updates: Update[], isState?: boolean) => void;

type Reply = Extract<Update, { type: "reply" }>;

interface Caller {
  tab: string;
  callId: number;
}

export class Leader {
  readonly #link: Link;
  readonly #send: SendUpdates;
  readonly #memory: TabMemory;
  #isClosed = false;
  #lastCallId = 0;
  #callers = new Map<number, Caller | ((reply: Reply) => void)>();
  #connected: Connected | undefined;
  #status: Update = { type: "status", status: "connecting" };
  #watched = new Map<string, string[]>();
  #tracking = new Map<string, Set<string>>();

  constructor(link: Link, memory: TabMemory, send: SendUpdates) {
    this.#link = link;
    this.#memory = memory;
    this.#send = send;
  }

  start(): void {
    this.#link.start(this.#memory.resume, (updates) => {
      // After the close, ignore updates: the next leader continues.
      if (!this.#isClosed) this.#updated(updates);
    });
  }

  close(): void {
    this.#isClosed = true;
    this.#link.command({ type: "close" });
  }

  wake(): void {
    this.#link.wake();
  }

  handle(message: TabMessage): void {
    switch (message.type) {
      case "hello":
        for (const command of message.commands) this.command(message.from, command);
        return this.#sendState(message.from, message.resume);
      case "command":
        return this.command(message.from, message.command);
      case "wake":
        return this.wake();
      case "bye":
        return this.#leave(message.from);
    }
  }

  command(tab: string, command: Command): void {
    switch (command.type) {
      case "close":
        // The other tabs go on.
        return this.#leave(tab);
      case "track":
        return this.#track(tab, command.channelId, command.isTracked);
      case "call": {
        const { callId, mode } = command;
        let { call } = command;
        if (call.method === "presence.watch") {
          // A session has one set of users, and each tab its own.
          this.#watched.set(tab, (call.params as { user_ids: string[] }).user_ids);
          call = callOf("presence.watch", { user_ids: this.#allWatched() });
        }
        return this.#call({ tab, callId }, { call, mode });
      }
      default:
        return this.#link.command(command);
    }
  }

  #call(
    caller: Caller | ((reply: Reply) => void),
    command: Pick<Extract<Command, { type: "call" }>, "call" | "mode">,
  ): void {
    const callId = (this.#lastCallId += 1);
    this.#callers.set(callId, caller);
    this.#link.command({ type: "call", callId, ...command });
  }

  #allWatched(): string[] {
    return [...new Set([...this.#watched.values()].flat())].slice(-MAX_WATCHED);
  }

  #track(tab: string, channelId: string, isTracked: boolean): void {
    const tabs = this.#tracking.get(channelId) ?? new Set<string>();
    this.#tracking.set(channelId, tabs);
    if (isTracked) tabs.add(tab);
    else tabs.delete(tab);
    this.#link.command({ type: "track", channelId, isTracked: tabs.size > 0 });
  }

  #leave(tab: string): void {
    this.#watched.delete(tab);
    for (const [channelId, tabs] of this.#tracking) {
      if (tabs.has(tab)) this.#track(tab, channelId, false);
    }
  }

  #updated(updates: Update[]): void {
    const shared: Update[] = [];
    for (const update of updates) {
      if (update.type === "reply") {
        // Send earlier updates first.
        this.#send(undefined, shared.splice(0));
        this.#reply(update);
        continue;
      }
      if (update.type === "connected") this.#connected = update.connected;
      if (update.type === "away" || update.type === "over") this.#connected = undefined;
      if (update.type === "status") this.#status = update;
      shared.push(update);
    }
    this.#send(undefined, shared);
  }

  #reply(update: Reply): void {
    const caller = this.#callers.get(update.callId);
    this.#callers.delete(update.callId);
    if (typeof caller === "function") return caller(update);
    if (caller) this.#send(caller.tab, [{ ...update, callId: caller.callId }]);
  }

  /** Sends the state to a new tab. Without a session, the tab gets it with the next one. */
  #sendState(tab: string, resume: Resume): void {
    const connected = this.#connected;
    if (!connected) return this.#send(tab, [this.#status], true);
    // From now on the tab gets all updates.
    const gaps = this.#memory.gapsOf(resume);
    const limit = connected.limits.page || undefined;
    const done = ({ outcome }: Reply) => {
      // The session has ended: the next one brings the state.
      if (!outcome.result) return this.#send(tab, [this.#status], true);
      const { items, cursor } = outcome.result as EntryList;
      const more = cursor !== undefined;
      const whole: Update[] = [
        { type: "gap", gap: "trimmed", to: connected.user_position },
        { type: "channels", entries: items },
        { type: "recovered" },
      ];
      const state: Update[] = [
        this.#status,
        { type: "connected", connected: { ...connected, channels: items, more } },
        // Channels that are not in the whole list are the user's no more.
        ...(more ? [] : whole),
        ...gaps,
      ];
      this.#send(tab, state, true);
    };
    this.#call(done, { call: callOf("channel.list", { cursor: undefined, limit }), mode: "now" });
  }
}
