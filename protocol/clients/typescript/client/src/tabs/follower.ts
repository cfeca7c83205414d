/** State that a tab keeps so that it can become the leader or turn to another one. */

import type { Command, Position, Resume, Update } from "../machine/io.ts";
import type { Entry } from "../protocol/generated.ts";

export class TabMemory {
  #userPosition: Position | undefined;
  #positions = new Map<string, Position>();
  #followed = new Set<string>();
  #tracked = new Set<string>();
  /** Messages and calls that are not answered. */
  #sends = new Map<string, Extract<Command, { type: "send" }>>();
  #calls = new Map<number, Extract<Command, { type: "call" }>>();
  #watched: Command | undefined;

  resumed(resume: Resume): void {
    this.#userPosition = resume.userPosition;
    this.#positions = new Map(Object.entries(resume.channels ?? {}));
  }

  /** The positions from which a new leader continues. */
  get resume(): Resume {
    return { userPosition: this.#userPosition, channels: Object.fromEntries(this.#positions) };
  }

  commanded(command: Command): void {
    switch (command.type) {
      case "follow":
        return void this.#followed.add(command.channelId);
      case "track":
        if (command.isTracked) this.#tracked.add(command.channelId);
        else this.#tracked.delete(command.channelId);
        return;
      case "send":
        return void this.#sends.set(command.message.message_id, command);
      case "call":
        this.#calls.set(command.callId, command);
        if (command.call.method === "presence.watch") this.#watched = command;
    }
  }

  /** The client ended: messages and calls fail. */
  failAll(): Update[] {
    const error = { code: "unavailable", message: "the client ended" };
    const failed: Update[] = [];
    for (const callId of this.#calls.keys())
      failed.push({ type: "reply", callId, outcome: { error } });
    for (const { channelId, message } of this.#sends.values()) {
      const messageId = message.message_id;
      failed.push({ type: "failed", channelId, messageId, error, wasSent: true });
    }
    failed.forEach((update) => this.updated(update));
    return failed;
  }

  /** Returns the commands for a new leader. Calls that may not be repeated fail instead. */
  handOver(): { commands: Command[]; failed: Update[] } {
    const commands: Command[] = [];
    const failed: Update[] = [];
    for (const channelId of this.#followed) commands.push({ type: "follow", channelId });
    for (const channelId of this.#tracked)
      commands.push({ type: "track", channelId, isTracked: true });
    commands.push(...this.#sends.values());
    for (const command of this.#calls.values()) {
      const { callId, mode } = command;
      const error = { code: "unavailable", message: "the tab with the connection was closed" };
      if (mode === "retry") commands.push(command);
      else failed.push({ type: "reply", callId, outcome: { error } });
    }
    if (this.#watched && !commands.includes(this.#watched)) commands.push(this.#watched);
    failed.forEach((update) => this.updated(update));
    return { commands, failed };
  }

  updated(update: Update): void {
    switch (update.type) {
      case "connected": {
        const { channels, user_position, user_gap } = update.connected;
        if (user_gap || !this.#userPosition) this.#userPosition = user_position;
        for (const entry of channels) if (!("error" in entry)) this.#enter(entry);
        return;
      }
      case "joined":
        return this.#enter(update.entry);
      case "lost":
        return void this.#positions.delete(update.channelId);
      case "gap":
        if (update.channelId === undefined) this.#userPosition = update.to;
        else this.#positions.set(update.channelId, update.to);
        return;
      case "event":
        return this.#event(update.event);
      case "sent":
        return void this.#sends.delete(update.message.id);
      case "failed":
        return void this.#sends.delete(update.messageId);
      case "reply":
        return void this.#calls.delete(update.callId);
    }
  }

  /** The gaps of a tab that has seen less than this one. */
  gapsOf({ channels = {} }: Resume): Update[] {
    return Object.entries(channels).flatMap(([channelId, [seq, at]]): Update[] => {
      const to = this.#positions.get(channelId);
      if (!to || (to[0] === seq ? to[1] === at : to[0] < seq)) return [];
      return [
        { type: "gap", channelId, gap: "diverged", to },
        { type: "recovered", channelId },
      ];
    });
  }

  #enter({ channel_id, seq, at }: Entry): void {
    if (!this.#positions.has(channel_id)) this.#positions.set(channel_id, [seq, at]);
  }

  #event({ event, channel_id, seq, at, data }: Extract<Update, { type: "event" }>["event"]): void {
    if (seq === undefined || at === undefined) return;
    if (channel_id !== undefined) {
      this.#positions.set(channel_id, [seq, at]);
      if (event === "channel.deleted") this.#positions.delete(channel_id);
      return;
    }
    this.#userPosition = [seq, at];
    if (event === "channel.added") this.#enter(data.entry as Entry);
    if (event === "channel.removed") this.#positions.delete(data.channel_id as string);
  }
}
