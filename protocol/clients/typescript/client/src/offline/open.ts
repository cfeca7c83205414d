/** A client whose last pages, positions and unsent messages survive a reload. */

import { Chat, type ChatSettings } from "../chat.ts";
import { Connection } from "../connection/connection.ts";
import type { Link } from "../connection/link.ts";
import type { Command, Resume, Update } from "../machine/io.ts";
import type { Connected, Entry } from "../protocol/generated.ts";
import type { SavedChannel, SavedUser } from "../state/types.ts";
import type { KeyValueStore } from "./key_value.ts";

/** Changes are written together after this time, in milliseconds. */
const WRITE_DELAY = 300;

/** Number of messages that are kept of a channel. */
const KEPT_MESSAGES = 50;

/** Data of another version is not read. */
const VERSION = 1;

interface Identity {
  version: number;
  app: string;
  user: string;
}

export interface OfflineChat {
  chat: Chat;
  /** Writes all changes now, for example before the page is closed. */
  flush(): Promise<void>;
  /** Ends the client and erases the saved state. */
  signOut(): Promise<void>;
}

/**
 * Makes a client that shows the saved state at once, and continues from there. A store that cannot
 * be read or written is reported to `onError`, and the client works without it.
 */
export async function openChat(
  settings: ChatSettings,
  store: KeyValueStore,
  onError: (error: unknown) => void = () => {},
): Promise<OfflineChat> {
  const link = new RecordingLink(settings.link ?? new Connection(settings));
  const chat = new Chat({ ...settings, link });
  const keeper = new Keeper(chat, store, onError);
  try {
    keeper.restore(await store.entries());
  } catch (error) {
    onError(error);
  }
  link.observe(
    (command) => keeper.commanded(command),
    (updates) => keeper.updated(updates),
  );
  return {
    chat,
    flush: () => keeper.flush(),
    signOut: async () => {
      keeper.stop();
      chat.close();
      await store.erase();
    },
  };
}

/** A connection whose commands and updates are observed. */
class RecordingLink implements Link {
  readonly #inner: Link;
  #commanded: (command: Command) => void = () => {};
  #updated: (updates: Update[]) => Update[] = (updates) => updates;

  constructor(inner: Link) {
    this.#inner = inner;
  }

  observe(commanded: (command: Command) => void, updated: (updates: Update[]) => Update[]): void {
    this.#commanded = commanded;
    this.#updated = updated;
  }

  start(resume: Resume, listener: (updates: Update[]) => void): void {
    this.#inner.start(resume, (updates) => listener(this.#updated(updates)));
  }

  command(command: Command): void {
    this.#inner.command(command);
    this.#commanded(command);
  }

  wake(): void {
    this.#inner.wake();
  }
}

/** Writes changes to the store. */
class Keeper {
  readonly #chat: Chat;
  readonly #store: KeyValueStore;
  readonly #onError: (error: unknown) => void;
  #identity: Identity | undefined;
  /** Channels whose state has changed. */
  #changed = new Set<string>();
  #kept = new Set<string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing = Promise.resolve();
  #isStopped = false;

  constructor(chat: Chat, store: KeyValueStore, onError: (error: unknown) => void) {
    this.#chat = chat;
    this.#store = store;
    this.#onError = onError;
  }

  restore(entries: Array<[string, unknown]>): void {
    const kept = new Map(entries);
    const identity = kept.get("identity") as Identity | undefined;
    const user = kept.get("user") as SavedUser | undefined;
    if (identity?.version !== VERSION || !user) return;
    this.#identity = identity;
    const channels = entries
      .filter(([key]) => key.startsWith("channel:"))
      .map(([, value]) => value as SavedChannel);
    const positions = channels.map(({ info, position }) => [info.id, position] as const);
    this.#kept = new Set(channels.map(({ info }) => info.id));
    this.#chat.restore(user, Object.fromEntries(positions), channels.map(entryOf));
    for (const channel of channels) this.#chat.channel(channel.info.id).restore(channel);
  }

  commanded(command: Command): void {
    if (command.type === "send") this.#change(command.channelId);
  }

  /** Returns the updates for the state, before which another user's channels are removed. */
  updated(updates: Update[]): Update[] {
    const before: Update[] = [];
    for (const update of updates) {
      if (update.type === "connected") before.push(...this.#identify(update.connected));
      for (const id of channelsOf(update)) this.#change(id);
      if (update.type === "over") queueMicrotask(() => void this.flush());
    }
    return [...before, ...updates];
  }

  #identify({ user, app_id, environment, channels }: Connected): Update[] {
    const app = `${app_id} ${environment}`;
    const isSame = this.#identity?.user === user.id && this.#identity.app === app;
    this.#identity = { version: VERSION, app, user: user.id };
    channels.forEach(({ channel_id }) => this.#change(channel_id));
    if (isSame) return [];
    const foreign = [...this.#kept];
    this.#kept.clear();
    this.#write(foreign.map((id) => [`channel:${id}`, undefined]));
    const error = { code: "not_found", message: "kept by another user" };
    return foreign.map((channelId) => ({ type: "lost", channelId, error }));
  }

  #change(id: string): void {
    this.#changed.add(id);
    this.#timer ??= setTimeout(() => void this.flush(), WRITE_DELAY);
  }

  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const changes: Array<[string, unknown]> = [];
    for (const id of this.#changed) {
      const isListed = this.#chat.channels.getSnapshot().some((channel) => channel.id === id);
      const saved = this.#chat.channel(id).save();
      if (!isListed && this.#kept.delete(id)) changes.push([`channel:${id}`, undefined]);
      // A channel that still misses something is written after the next change.
      if (!isListed || saved) this.#changed.delete(id);
      if (!isListed || !saved) continue;
      this.#kept.add(id);
      const messages = saved.messages.slice(-KEPT_MESSAGES);
      const hasOlder = saved.hasOlder || messages.length < saved.messages.length;
      changes.push([`channel:${id}`, { ...saved, messages, hasOlder }]);
    }
    const user = this.#chat.save();
    if (user && this.#identity) changes.push(["user", user], ["identity", this.#identity]);
    this.#write(changes);
    await this.#writing;
  }

  #write(changes: Array<[string, unknown]>): void {
    if (this.#isStopped || changes.length === 0) return;
    this.#writing = this.#writing
      .then(() => (this.#isStopped ? undefined : this.#store.write(changes)))
      .catch(this.#onError);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }
}

/** The channels that an update changes. */
function channelsOf(update: Update): string[] {
  switch (update.type) {
    case "event":
      return [
        update.event.channel_id ??
          (update.event.data.entry as Entry | undefined)?.channel_id ??
          (update.event.data.channel_id as string | undefined) ??
          "",
      ];
    case "joined":
      return [update.entry.channel_id];
    case "channels":
      return update.entries.map((entry) => entry.channel_id);
    case "sent":
      return [update.message.channel_id];
    case "lost":
    case "messages":
    case "failed":
      return [update.channelId];
    case "gap":
    case "recovered":
      return update.channelId === undefined ? [] : [update.channelId];
    default:
      return [];
  }
}

function entryOf({ info, position: [seq, at] }: SavedChannel): Entry {
  const { id, channel, role, number, read, unread, lastMessage } = info;
  return {
    channel_id: id,
    ...(channel && { channel }),
    ...(role && { role }),
    ...(lastMessage && { last_message: lastMessage }),
    ...{ seq, at, number, read, unread },
  };
}
