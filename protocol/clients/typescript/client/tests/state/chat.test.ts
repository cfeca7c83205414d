import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { ChaosError, type Chat } from "../../src/index.ts";
import type { FakeServer } from "../../src/testing/index.ts";
import { chatOf, serverWithChannel, settle, texts } from "./help.ts";

let server: FakeServer;
let alice: Chat;
let bob: Chat;

const general = (chat: Chat) => chat.channel("general");
const messages = (chat: Chat) => general(chat).messages.getSnapshot();
const info = (chat: Chat) => general(chat).info.getSnapshot();
const status = (chat: Chat) => chat.connection.getSnapshot().status;

beforeEach(async () => {
  vi.useFakeTimers();
  server = serverWithChannel();
  for (let number = 1; number <= 120; number += 1) server.send("general", "bob", `old ${number}`);
  alice = chatOf(server, "alice").connect();
  bob = chatOf(server, "bob").connect();
  await settle();
});

afterEach(() => {
  alice.close();
  bob.close();
  vi.useRealTimers();
});

describe("messages", () => {
  test("opening a channel loads the newest page, and older ones on demand", async () => {
    const close = general(alice).open();
    expect(messages(alice)).toMatchObject({ isLoaded: false, isLoading: true });
    await settle();
    expect(messages(alice)).toMatchObject({
      isLoaded: true,
      isLoading: false,
      hasOlder: true,
      hasNewer: false,
    });
    expect(texts(alice)).toHaveLength(50);
    await general(alice).loadOlder();
    await general(alice).loadOlder();
    expect(texts(alice)).toHaveLength(120);
    expect(messages(alice).hasOlder).toBe(false);
    close();
    expect(texts(alice), "a channel that is closed keeps its last page").toHaveLength(50);
  });

  test("a sent message is shown at once, and once only when it is stored", async () => {
    general(alice).open();
    general(bob).open();
    await settle();
    const seen: number[] = [];
    general(alice).messages.subscribe(({ items }) =>
      seen.push(items.filter(({ text }) => text === "hi").length),
    );
    general(alice).send("hi");
    expect(texts(alice).at(-1)).toBe("hi (pending)");
    await settle();
    expect(texts(alice).at(-1)).toBe("hi");
    expect(texts(bob).at(-1)).toBe("hi");
    expect(new Set(seen)).toEqual(new Set([0, 1]));
    expect(seen.lastIndexOf(0), "it does not vanish in between").toBe(0);
  });

  test("a message whose reply is lost is sent again and stored once", async () => {
    general(alice).open();
    await settle();
    let isLost = false;
    server.onRequest = ({ method }) => {
      if (method !== "message.send" || isLost) return undefined;
      isLost = true;
      return "lose";
    };
    general(alice).send("hi");
    await settle();
    expect(status(alice)).toBe("connecting");
    await vi.advanceTimersByTimeAsync(1000);
    expect(server.requests["message.send"]).toBe(2);
    expect(texts(alice).filter((text) => text === "hi")).toHaveLength(1);
    expect(server.channels.get("general")?.messages).toHaveLength(121);
  });

  test("a refused message is marked as failed, and can be sent again or discarded", async () => {
    general(alice).open();
    await settle();
    server.onRequest = ({ method }) =>
      method === "message.send" ? { code: "forbidden", message: "not here" } : undefined;
    const first = general(alice).send("one");
    const second = general(alice).send({ text: "two", metadata: { kind: "card" } });
    await settle();
    expect(texts(alice).slice(-2)).toEqual(["one (failed)", "two (failed)"]);
    expect(messages(alice).items.at(-1)?.error).toMatchObject({ code: "forbidden" });
    general(alice).discard(first);
    server.onRequest = () => undefined;
    general(alice).retry(second);
    expect(texts(alice).at(-1)).toBe("two (pending)");
    await settle();
    expect(texts(alice).slice(-2)).toEqual(["old 120", "two"]);
    expect(messages(alice).items.at(-1)).toMatchObject({ id: second, metadata: { kind: "card" } });
  });

  test("what is written offline is sent in its order after the connection is back", async () => {
    general(alice).open();
    await settle();
    server.isDown = true;
    server.cut();
    await settle();
    for (const text of ["a", "b", "c"]) general(alice).send(text);
    await vi.advanceTimersByTimeAsync(5000);
    expect(status(alice)).toBe("offline");
    expect(texts(alice).slice(-3)).toEqual(["a (pending)", "b (pending)", "c (pending)"]);
    server.isDown = false;
    alice.wake();
    await settle();
    expect(texts(alice).slice(-3)).toEqual(["a", "b", "c"]);
  });

  test("edits are shown at once, and undone if they are refused", async () => {
    general(alice).open();
    await settle();
    const id = general(alice).send("helo");
    await settle();
    const edit = general(alice).edit(id, { text: "hello" });
    expect(texts(alice).at(-1)).toBe("hello");
    await edit;
    expect(messages(alice).items.at(-1)).toMatchObject({
      text: "hello",
      edited_at: expect.any(Number),
    });
    server.onRequest = ({ method }) =>
      method === "message.edit" ? { code: "forbidden", message: "no" } : undefined;
    const refused = general(alice).edit(id, { text: "bye" });
    await expect(refused).rejects.toThrow(ChaosError);
    expect(texts(alice).at(-1)).toBe("hello");
  });

  test("a deleted message keeps its place", async () => {
    general(alice).open();
    await settle();
    const { id } = messages(alice).items[10] ?? { id: "" };
    await general(alice).delete(id);
    await settle();
    expect(messages(alice).items[10]).toMatchObject({
      id,
      text: "",
      deleted_at: expect.any(Number),
    });
    expect(messages(alice).items).toHaveLength(50);
  });

  test("reactions are shown at once, counted by the server and undone if refused", async () => {
    general(alice).open();
    general(bob).open();
    await settle();
    const { id } = messages(alice).items.at(-1) ?? { id: "" };
    const last = () => messages(alice).items.at(-1);
    const done = general(alice).react(id, "❤\ufe0f");
    expect(last()).toMatchObject({ reactions: { "❤": 1 }, own_reactions: ["❤"] });
    await done;
    await general(bob).react(id, "❤");
    await settle();
    expect(last()).toMatchObject({ reactions: { "❤": 2 }, own_reactions: ["❤"] });
    await general(alice).react(id, "❤", false);
    await settle();
    expect(last()).toMatchObject({ reactions: { "❤": 1 }, own_reactions: [] });
    server.onRequest = ({ method }) =>
      method === "reaction.add" ? { code: "limit_reached", message: "no" } : undefined;
    await expect(general(alice).react(id, "x")).rejects.toThrow("no");
    expect(last()?.reactions).toEqual({ "❤": 1 });
  });

  test("the messages around one are shown, and newer ones are loaded up to the newest", async () => {
    general(alice).open();
    await settle();
    await general(alice).loadAround(40);
    expect(texts(alice)[0]).toBe("old 16");
    expect(texts(alice).at(-1)).toBe("old 65");
    expect(messages(alice)).toMatchObject({ hasOlder: true, hasNewer: true });
    server.send("general", "bob", "new");
    await settle();
    expect(texts(alice).at(-1)).toBe("old 65");
    await general(alice).loadNewer();
    await general(alice).loadNewer();
    expect(texts(alice).at(-1)).toBe("new");
    expect(messages(alice).hasNewer).toBe(false);
  });

  test("sending from the past leads back to the newest messages", async () => {
    general(alice).open();
    await settle();
    await general(alice).loadAround(30);
    general(alice).send("hi");
    await settle();
    expect(texts(alice).at(-1)).toBe("hi");
    expect(messages(alice).hasNewer).toBe(false);
  });

  test("a page that cannot be read says why", async () => {
    server.onRequest = ({ method }) =>
      method === "message.list" ? { code: "forbidden", message: "no" } : undefined;
    general(alice).open();
    await settle();
    expect(messages(alice)).toMatchObject({ isLoading: false, error: { code: "forbidden" } });
  });
});

describe("recovery", () => {
  test("missed messages arrive after the connection is back", async () => {
    general(alice).open();
    await settle();
    server.cut();
    await settle();
    server.send("general", "bob", "missed");
    await vi.advanceTimersByTimeAsync(1000);
    expect(status(alice)).toBe("online");
    expect(texts(alice).at(-1)).toBe("missed");
    expect(server.requests["message.list"]).toBe(1);
  });

  test("after a trimmed log the open channel is read, with edits of old messages", async () => {
    general(alice).open();
    await settle();
    const channel = server.channels.get("general");
    if (channel) channel.logEvents = 5;
    server.cut();
    await settle();
    channel?.perform("bob", "message.edit", {
      message_id: channel.messages[90]?.id,
      text: "edited",
    });
    for (let number = 1; number <= 70; number += 1) server.send("general", "bob", `new ${number}`);
    await vi.advanceTimersByTimeAsync(1000);
    expect(texts(alice)).toHaveLength(120);
    expect(texts(alice)[20]).toBe("edited");
    expect(texts(alice).at(-1)).toBe("new 70");
    expect(status(alice)).toBe("online");
  });

  test("a history that diverged is discarded and read again", async () => {
    general(alice).open();
    await settle();
    server.send("general", "bob", "lost");
    await settle();
    server.cut();
    server.channels.get("general")?.diverge(1);
    server.send("general", "bob", "in its place");
    await vi.advanceTimersByTimeAsync(1000);
    expect(texts(alice).slice(-2)).toEqual(["old 120", "in its place"]);
    expect(info(alice).number).toBe(121);
  });

  test("a live channel that diverged is read again", async () => {
    general(alice).open();
    await settle();
    server.channels.get("general")?.diverge(20);
    const { seq, at } = server.channels.get("general") ?? {};
    server.pass("channel.gap", { reason: "diverged", seq, at }, "general");
    await settle();
    expect(texts(alice).at(-1)).toBe("old 100");
    expect(info(alice).number).toBe(100);
  });
});

describe("channels", () => {
  test("the list is ordered by activity, and unread messages are counted", async () => {
    server.addChannel("other", ["alice", "bob"]);
    await settle();
    const ids = () => alice.channels.getSnapshot().map(({ id }) => id);
    expect(ids()).toEqual(["other", "general"]);
    server.send("general", "bob", "hi");
    server.send("general", "bob", "there");
    await settle();
    expect(ids()).toEqual(["general", "other"]);
    expect(info(alice)).toMatchObject({ unread: 122, number: 122, lastMessage: { text: "there" } });
    expect(alice.unread.getSnapshot()).toBe(122);
    await general(alice).markRead(121);
    expect(info(alice).unread).toBe(1);
    await general(alice).markRead();
    expect(alice.unread.getSnapshot()).toBe(0);
    await general(alice).markUnread(120);
    await settle();
    expect(info(alice)).toMatchObject({ read: 119, unread: 3 });
  });

  test("sending a message reads the channel", async () => {
    general(alice).send("hi");
    await settle();
    expect(info(alice)).toMatchObject({ read: 121, unread: 0 });
    expect(info(bob)).toMatchObject({ read: 120, unread: 1 });
  });

  test("read positions of the others are known", async () => {
    await general(alice).loadParticipants();
    expect(general(alice).reads.getSnapshot()).toMatchObject({ bob: 120 });
    server.send("general", "alice", "hi");
    await settle();
    await general(bob).markRead();
    await settle();
    expect(general(alice).reads.getSnapshot()).toMatchObject({ bob: 121 });
  });

  test("channels come and go with the user's participation", async () => {
    server.addChannel("secret", ["bob"]);
    server.addParticipant("secret", "alice");
    await settle();
    expect(alice.channels.getSnapshot().map(({ id }) => id)).toContain("secret");
    server.send("secret", "bob", "psst");
    alice.channel("secret").open();
    await settle();
    expect(texts(alice, "secret")).toEqual(["psst"]);
    server.removeParticipant("secret", "alice");
    await settle();
    expect(alice.channels.getSnapshot().map(({ id }) => id)).not.toContain("secret");
    expect(texts(alice, "secret")).toEqual([]);
  });

  test("a channel that is left while the client is away is removed", async () => {
    server.cut();
    server.removeParticipant("general", "alice");
    await vi.advanceTimersByTimeAsync(1000);
    expect(alice.channels.getSnapshot()).toEqual([]);
  });

  test("participants and their number follow events", async () => {
    await general(alice).loadParticipants();
    server.addParticipant("general", "carol");
    await settle();
    expect(
      general(alice)
        .participants.getSnapshot()
        .items.map(({ user_id }) => user_id),
    ).toEqual(["alice", "bob", "carol"]);
    expect(info(alice).channel?.participant_count).toBe(3);
  });

  test("a channel is created and opened", async () => {
    const channel = await alice.createChannel({ type: "group", participant_ids: ["bob"] });
    channel.open();
    channel.send("welcome");
    await settle();
    expect(texts(alice, channel.id)).toEqual(["welcome"]);
    expect(bob.channels.getSnapshot()[0]).toMatchObject({ id: channel.id, unread: 1 });
  });
});

describe("people", () => {
  test("typing is told at most every 3 s, and ends by itself", async () => {
    general(alice).setTyping(true);
    general(alice).setTyping(true);
    await settle();
    expect(server.requests.typing).toBe(1);
    expect(general(bob).typing.getSnapshot()).toEqual(["alice"]);
    await vi.advanceTimersByTimeAsync(3000);
    general(alice).setTyping(true);
    await vi.advanceTimersByTimeAsync(5999);
    expect(general(bob).typing.getSnapshot()).toEqual(["alice"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(general(bob).typing.getSnapshot()).toEqual([]);
  });

  test("a message ends the typing of its sender", async () => {
    general(alice).setTyping(true);
    await settle();
    general(alice).send("hi");
    await settle();
    expect(general(bob).typing.getSnapshot()).toEqual([]);
  });

  test("profiles are read once, many in one request", async () => {
    const names = ["bob", "alice", "nobody"].map((id) => bob.profile(id));
    expect(names[1]?.getSnapshot()).toBeUndefined();
    await settle();
    expect(names.map((name) => name.getSnapshot()?.username)).toEqual(["bob", "alice", undefined]);
    bob.profile("nobody").getSnapshot();
    await settle();
    expect(server.requests["user.get"]).toBe(1);
  });

  test("presence is known while it is watched, also in the next session", async () => {
    const bobs = alice.presence("bob");
    const end = alice.watchPresence(["bob"]);
    await settle();
    expect(bobs.getSnapshot()?.online).toBe(true);
    bob.close();
    await settle();
    expect(bobs.getSnapshot()?.online).toBe(false);
    server.cut();
    await vi.advanceTimersByTimeAsync(1000);
    chatOf(server, "bob").connect();
    await settle();
    expect(bobs.getSnapshot()?.online).toBe(true);
    end();
    await settle();
    expect(server.requests["presence.watch"]).toBe(3);
  });

  test("the user's own profile follows events", async () => {
    await alice.call("user.update", { first_name: "Al" });
    await settle();
    expect(alice.user.getSnapshot()?.first_name).toBe("Al");
  });
});

describe("observables", () => {
  test("a snapshot is the same object until it changes, and listeners are called once for many changes", async () => {
    general(alice).open();
    await settle();
    const before = messages(alice);
    expect(messages(alice)).toBe(before);
    let calls = 0;
    const end = general(alice).messages.subscribe(() => (calls += 1));
    expect(calls, "a listener gets the value at once").toBe(1);
    for (let number = 0; number < 5; number += 1) server.send("general", "bob", "x");
    await settle();
    expect(messages(alice)).not.toBe(before);
    expect(calls).toBeLessThanOrEqual(6);
    end();
    const ended = calls;
    server.send("general", "bob", "y");
    await settle();
    expect(calls).toBe(ended);
  });

  test("events are passed on after the state has changed", async () => {
    const seen: Array<[string, number]> = [];
    alice.onEvent(({ event }) => seen.push([event, info(alice).number]));
    server.send("general", "bob", "x");
    await settle();
    expect(seen).toEqual([["message.created", 121]]);
  });
});

describe("the connection", () => {
  test("a token provider that fails is asked again, and a message waits", async () => {
    let calls = 0;
    const token = () => {
      calls += 1;
      if (calls < 3) throw new Error("backend is down");
      return "bob";
    };
    const chat = chatOf(server, "bob", { token });
    chat.channel("general").send("early");
    chat.connect();
    await vi.advanceTimersByTimeAsync(5000);
    expect(calls).toBe(3);
    expect(server.channels.get("general")?.messages.at(-1)?.text).toBe("early");
    chat.close();
  });

  test("what cannot be sent is refused without ending the connection", async () => {
    const huge = alice.call("user.update", { bio: "x".repeat(70_000) });
    await expect(huge).rejects.toMatchObject({ code: "too_large" });
    const odd = alice.call("user.update", { metadata: { odd: NaN } });
    await expect(odd).rejects.toMatchObject({ code: "bad_request" });
    expect(status(alice)).toBe("online");
  });

  test("a client that ended says why, and fails what it is asked", async () => {
    server.cut(4004, "session ended");
    await settle();
    expect(alice.connection.getSnapshot()).toMatchObject({
      status: "closed",
      why: { kind: "closed", closed: { code: 4004, reason: "session ended" } },
    });
    general(alice).send("late");
    expect(texts(alice)).toEqual(["late (failed)"]);
    await expect(alice.call("ping", {})).rejects.toMatchObject({ code: "unavailable" });
  });

  test("listeners of the page are removed at the end", async () => {
    const add = vi.fn();
    const remove = vi.fn();
    vi.stubGlobal("addEventListener", add);
    vi.stubGlobal("removeEventListener", remove);
    const chat = chatOf(server, "bob").connect();
    expect(add.mock.calls.map(([type]) => type)).toEqual(["online", "pageshow"]);
    chat.close();
    expect(remove.mock.calls).toEqual(add.mock.calls);
    vi.unstubAllGlobals();
  });
});
