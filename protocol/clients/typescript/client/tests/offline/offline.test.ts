import { IDBFactory } from "fake-indexeddb";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Chat } from "../../src/index.ts";
import { indexedDb, type KeyValueStore, openChat } from "../../src/offline/index.ts";
import type { FakeServer } from "../../src/testing/index.ts";
import { serverWithChannel, settle, texts } from "../state/help.ts";

/** A store in memory that copies what it keeps, as a real one does. */
function memory(): KeyValueStore & { data: Map<string, unknown> } {
  const data = new Map<string, unknown>();
  return {
    data,
    entries: async () => structuredClone([...data]),
    write: async (changes) => {
      for (const [key, value] of structuredClone(changes)) {
        if (value === undefined) data.delete(key);
        else data.set(key, value);
      }
    },
    erase: async () => data.clear(),
  };
}

let server: FakeServer;
const opened: Chat[] = [];

const open = async (store: KeyValueStore, user = "alice") => {
  const settings = { url: "ws://fake", token: () => user, WebSocket: server.WebSocket };
  const offline = await openChat(settings, store);
  opened.push(offline.chat);
  return offline;
};
const wait = async () => {
  await vi.advanceTimersByTimeAsync(1000);
  await settle();
};

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance", "Date"] });
  server = serverWithChannel();
  for (let number = 1; number <= 70; number += 1) server.send("general", "bob", `old ${number}`);
});

afterEach(() => {
  opened.splice(0).forEach((chat) => chat.close());
  vi.useRealTimers();
});

describe("an offline store", () => {
  test("the last page is shown at once after a reload, without a connection", async () => {
    const store = memory();
    const first = await open(store);
    first.chat.connect().channel("general").open();
    await wait();
    server.isDown = true;
    const second = await open(store);
    expect(texts(second.chat)).toHaveLength(50);
    expect(texts(second.chat).at(-1)).toBe("old 70");
    expect(second.chat.channels.getSnapshot()).toMatchObject([{ id: "general", unread: 70 }]);
    expect(second.chat.user.getSnapshot()?.id).toBe("alice");
  });

  test("after a reload only what was missed is read", async () => {
    const store = memory();
    const first = await open(store);
    first.chat.connect().channel("general").open();
    await wait();
    first.chat.close();
    await wait();
    server.send("general", "bob", "missed");
    server.requests["message.list"] = 0;
    const second = await open(store);
    second.chat.connect().channel("general").open();
    await wait();
    expect(texts(second.chat).at(-1)).toBe("missed");
    expect(second.chat.unread.getSnapshot()).toBe(71);
    expect(server.requests["message.list"]).toBe(0);
    await second.chat.channel("general").loadOlder();
    expect(texts(second.chat)).toHaveLength(71);
  });

  test("a page that is trimmed or diverged meanwhile is read again", async () => {
    for (const harm of ["trim", "diverge"]) {
      const store = memory();
      const first = await open(store);
      first.chat.connect().channel("general").open();
      await wait();
      first.chat.close();
      await wait();
      const channel = server.channels.get("general");
      if (channel && harm === "trim") channel.logEvents = 3;
      if (harm === "diverge") channel?.diverge(2);
      for (let number = 1; number <= 9; number += 1)
        server.send("general", "bob", `${harm} ${number}`);
      const second = await open(store);
      second.chat.connect().channel("general").open();
      await wait();
      const stored = channel?.messages.map(({ text }) => text) ?? [];
      expect(texts(second.chat)).toEqual(stored.slice(-texts(second.chat).length));
      if (channel) channel.logEvents = 1000;
    }
  });

  test("messages that were not stored are sent after a reload, once", async () => {
    const store = memory();
    const first = await open(store);
    first.chat.connect().channel("general").open();
    await wait();
    server.isDown = true;
    server.cut();
    first.chat.channel("general").send("written offline");
    await wait();
    const second = await open(store);
    expect(texts(second.chat).at(-1)).toBe("written offline (pending)");
    server.isDown = false;
    second.chat.connect();
    await wait();
    first.chat.wake();
    await wait();
    expect(texts(second.chat).at(-1)).toBe("written offline");
    expect(server.channels.get("general")?.messages).toHaveLength(71);
  });

  test("channels that the user left are forgotten", async () => {
    const store = memory();
    const { chat } = await open(store);
    chat.connect();
    await wait();
    expect(store.data.has("channel:general")).toBe(true);
    server.removeParticipant("general", "alice");
    await wait();
    expect(store.data.has("channel:general")).toBe(false);
  });

  test("signing out erases what was kept", async () => {
    const store = memory();
    const { chat, signOut } = await open(store);
    chat.connect().channel("general").open();
    await wait();
    await signOut();
    await wait();
    expect(store.data.size).toBe(0);
    expect(chat.connection.getSnapshot().status).toBe("closed");
  });

  test("what was kept of another user is not shown beside one's own", async () => {
    const store = memory();
    server.addChannel("secret", ["alice"]);
    server.send("secret", "alice", "only mine");
    const first = await open(store);
    first.chat.connect().channel("secret").open();
    await wait();
    const second = await open(store, "bob");
    second.chat.connect();
    await wait();
    expect(second.chat.channels.getSnapshot().map(({ id }) => id)).toEqual(["general"]);
    expect(texts(second.chat, "secret")).toEqual([]);
    expect(store.data.has("channel:secret")).toBe(false);
  });

  test("a store that fails is reported, and the client works without it", async () => {
    const errors: unknown[] = [];
    const broken: KeyValueStore = {
      entries: () => Promise.reject(new Error("no disk")),
      write: () => Promise.reject(new Error("disk is full")),
      erase: async () => {},
    };
    const settings = { url: "ws://fake", token: () => "alice", WebSocket: server.WebSocket };
    const { chat } = await openChat(settings, broken, (error) => errors.push(error));
    opened.push(chat);
    chat.connect().channel("general").open();
    await wait();
    expect(texts(chat)).toHaveLength(50);
    expect(errors.map(String)).toEqual(["Error: no disk", "Error: disk is full"]);
  });
});

describe("IndexedDB", () => {
  beforeEach(() => {
    vi.useRealTimers();
    vi.stubGlobal("indexedDB", new IDBFactory());
  });
  afterEach(() => void vi.unstubAllGlobals());

  test("values are kept by user, and erased", async () => {
    const alice = indexedDb("alice");
    expect(await alice.entries()).toEqual([]);
    await alice.write([
      ["a", { x: 1 }],
      ["b", 2],
    ]);
    await alice.write([["b", undefined]]);
    expect(await indexedDb("alice").entries()).toEqual([["a", { x: 1 }]]);
    expect(await indexedDb("bob").entries()).toEqual([]);
    await alice.erase();
    expect(await alice.entries()).toEqual([]);
  });

  test("a chat continues from it", async () => {
    const first = await open(indexedDb("alice"));
    first.chat.connect().channel("general").open();
    await vi.waitFor(() => expect(texts(first.chat)).toHaveLength(50));
    await first.flush();
    const second = await open(indexedDb("alice"));
    expect(texts(second.chat)).toHaveLength(50);
  });
});
