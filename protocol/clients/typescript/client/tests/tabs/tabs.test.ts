import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Chat } from "../../src/index.ts";
import { sharedConnection } from "../../src/tabs/index.ts";
import type { FakeServer } from "../../src/testing/index.ts";
import { chatOf, serverWithChannel, settle, texts } from "../state/help.ts";
import { Browser, type Tab } from "./browser.ts";

let server: FakeServer;
let browser: Browser;
let first: Tab;
let second: Tab;

const wait = async () => {
  for (let turn = 0; turn < 10; turn += 1) await settle();
  await vi.advanceTimersByTimeAsync(1000);
  for (let turn = 0; turn < 10; turn += 1) await settle();
};
const open = (tab: Tab) => tab.chat.channel("general").open();
const status = ({ chat }: Tab) => chat.connection.getSnapshot().status;
const unread = ({ chat }: Tab) => chat.unread.getSnapshot();

beforeEach(async () => {
  vi.useFakeTimers();
  server = serverWithChannel();
  for (let number = 1; number <= 3; number += 1) server.send("general", "bob", `old ${number}`);
  browser = new Browser(server);
  first = browser.open("alice");
  await wait();
  second = browser.open("alice");
  await wait();
});

afterEach(() => void vi.useRealTimers());

describe("tabs with a shared connection", () => {
  test("one tab has the connection, and all show the same", async () => {
    expect([first.sessions, second.sessions]).toEqual([1, 0]);
    expect(status(second)).toBe("online");
    expect(second.chat.user.getSnapshot()?.id).toBe("alice");
    open(first);
    open(second);
    await wait();
    server.send("general", "bob", "hello");
    await wait();
    for (const tab of [first, second]) {
      expect(texts(tab.chat)).toEqual(["old 1", "old 2", "old 3", "hello"]);
      expect(unread(tab)).toBe(4);
    }
    await second.chat.channel("general").markRead();
    await wait();
    expect([unread(first), unread(second)]).toEqual([0, 0]);
  });

  test("messages, edits and calls of a tab without a connection arrive", async () => {
    open(first);
    open(second);
    await wait();
    const id = second.chat.channel("general").send("helo");
    expect(texts(second.chat).at(-1)).toBe("helo (pending)");
    await wait();
    expect([texts(first.chat).at(-1), texts(second.chat).at(-1)]).toEqual(["helo", "helo"]);
    await second.chat.channel("general").edit(id, { text: "hello" });
    await wait();
    expect(texts(first.chat).at(-1)).toBe("hello");
    const refused = second.chat.channel("nowhere").delete("msg_x");
    await expect(refused).rejects.toMatchObject({ code: "not_found" });
  });

  test("when the tab with the connection crashes another one continues it", async () => {
    open(second);
    await wait();
    first.kill();
    server.send("general", "bob", "missed");
    second.chat.channel("general").send("written meanwhile");
    await wait();
    expect(second.sessions).toBe(1);
    expect(status(second)).toBe("online");
    expect(texts(second.chat)).toEqual(["old 1", "old 2", "old 3", "missed", "written meanwhile"]);
    expect(server.requests["message.list"], "nothing is read again").toBe(1);
  });

  test("a third tab turns to the new leader without a change of what it shows", async () => {
    const third = browser.open("alice");
    open(third);
    await wait();
    let changes = 0;
    third.chat
      .channel("general")
      .messages.subscribe(({ isLoaded }) => (changes += isLoaded ? 0 : 1));
    first.kill();
    server.send("general", "bob", "missed");
    await wait();
    third.chat.channel("general").send("from the third");
    await wait();
    expect([second.sessions, third.sessions]).toEqual([1, 0]);
    expect(texts(third.chat)).toEqual(["old 1", "old 2", "old 3", "missed", "from the third"]);
    expect(unread(third)).toBe(0);
    expect(changes).toBe(0);
  });

  test("a call that may not be repeated fails when the tab with the connection is gone", async () => {
    server.onRequest = ({ method }) => (method === "channel.create" ? "drop" : undefined);
    const created = second.chat.createChannel({ type: "group" });
    first.kill();
    const failed = expect(created).rejects.toMatchObject({ code: "unavailable" });
    await wait();
    await failed;
  });

  test("closing the client of one tab leaves the others connected", async () => {
    open(second);
    await wait();
    second.chat.channel("general").send("one");
    first.chat.close();
    await wait();
    expect(status(first)).toBe("closed");
    expect(status(second)).toBe("online");
    expect(texts(second.chat).at(-1)).toBe("one");
    first.chat.channel("general").send("late");
    expect(texts(first.chat).at(-1)).toBe("late (failed)");
  });

  test("presence of all tabs is watched", async () => {
    chatOf(server, "bob").connect();
    server.addUsers("carol");
    first.chat.watchPresence(["bob"]);
    second.chat.watchPresence(["carol"]);
    await wait();
    expect(first.chat.presence("bob").getSnapshot()?.online).toBe(true);
    chatOf(server, "carol").connect();
    await wait();
    expect(second.chat.presence("carol").getSnapshot()?.online).toBe(true);
    expect(first.chat.presence("bob").getSnapshot()?.online).toBe(true);
  });

  test("a tab that is opened while the connection is away learns the state with the next session", async () => {
    server.isDown = true;
    server.cut();
    await wait();
    const third = browser.open("alice");
    await wait();
    expect(status(third)).toBe("offline");
    server.isDown = false;
    third.chat.wake();
    await wait();
    expect(status(third)).toBe("online");
    expect(third.chat.channels.getSnapshot()).toHaveLength(1);
  });

  test("channels that were left are gone in every tab", async () => {
    server.removeParticipant("general", "alice");
    await wait();
    for (const tab of [first, second]) expect(tab.chat.channels.getSnapshot()).toEqual([]);
  });
});

test("without Web Locks each tab has a connection of its own", async () => {
  const settings = { url: "ws://fake", token: () => "alice", WebSocket: server.WebSocket };
  const link = sharedConnection({ ...settings, name: "alice" });
  const chat = new Chat({ ...settings, link }).connect();
  await wait();
  expect(chat.connection.getSnapshot().status).toBe("online");
  chat.close();
});
