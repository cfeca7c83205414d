/** The client against a real node. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { Chat } from "../../src/index.ts";
import { hasProgram, Node, until } from "./node.ts";

const node = new Node(["--limit", "log_events=20", "--drain-window", "1"]);
let made = 0;

/** A channel of its own for a test, with Alice and Bob. */
async function channelOf(...users: string[]): Promise<string> {
  made += 1;
  const id = `channel-${made}`;
  await node.api("POST", "/users/batch", {
    items: users.map((user) => ({ id: user, username: user })),
  });
  const body = {
    id,
    type: "group",
    name: id,
    creator_id: users[0],
    participant_ids: users.slice(1),
  };
  await node.api("POST", "/channels", body);
  return id;
}

const texts = (chat: Chat, id: string) =>
  chat
    .channel(id)
    .messages.getSnapshot()
    .items.map(({ text, status }) => `${text}${status === "sent" ? "" : "…"}`);
const status = (chat: Chat) => chat.connection.getSnapshot().status;
const info = (chat: Chat, id: string) => chat.channel(id).info.getSnapshot();

async function history(id: string): Promise<string[]> {
  const all: string[] = [];
  for (let after = 0, more = true; more;) {
    interface Page {
      items: Array<{ text: string; number: number }>;
      more: boolean;
    }
    const page: Page = await node.api("GET", `/channels/${id}/messages?after=${after}&limit=200`);
    all.push(...page.items.map(({ text }) => text));
    after = page.items.at(-1)?.number ?? after;
    more = page.more;
  }
  return all;
}

describe.skipIf(!hasProgram)("against a node", { timeout: 60_000 }, () => {
  beforeAll(() => node.start(), 60_000);
  afterAll(() => node.stop());

  test("two users chat, with edits, reactions, unread, typing, presence and profiles", async () => {
    const id = await channelOf("alice", "bob");
    const [alice, bob] = [node.chat("alice"), node.chat("bob")];
    alice.channel(id).open();
    bob.channel(id).open();
    await until(() => status(alice) === "online" && status(bob) === "online");
    bob.watchPresence(["alice"]);
    const message = alice.channel(id).send({ text: "helo", metadata: { kind: "card" } });
    await until(() => texts(bob, id).includes("helo") && texts(alice, id).includes("helo"));
    expect(info(bob, id)).toMatchObject({ unread: 1, number: 1 });
    expect(info(alice, id)).toMatchObject({ unread: 0, read: 1 });
    await alice.channel(id).edit(message, { text: "hello" });
    await bob.channel(id).react(message, "👍");
    await until(() => {
      const [first] = alice.channel(id).messages.getSnapshot().items;
      return first?.text === "hello" && first.reactions["👍"] === 1;
    });
    await bob.channel(id).markRead();
    await until(() => alice.channel(id).reads.getSnapshot().bob === 1);
    bob.channel(id).setTyping(true);
    await until(() => alice.channel(id).typing.getSnapshot()[0] === "bob");
    await until(() => bob.presence("alice").getSnapshot()?.online);
    await until(() => bob.profile("alice").getSnapshot()?.username === "alice");
    await alice.channel(id).loadParticipants();
    expect(alice.channel(id).participants.getSnapshot().items).toHaveLength(2);
    await alice.channel(id).delete(message);
    await until(() => bob.channel(id).messages.getSnapshot().items[0]?.deleted_at);
    await bob.channel(id).markUnread(1);
    await until(() => info(bob, id).read === 0);
  });

  test("history is read in pages, in both directions", async () => {
    const id = await channelOf("alice", "bob");
    const send = (number: number) =>
      node.api("POST", `/channels/${id}/messages`, { sender_id: "bob", text: `m${number}` });
    for (let number = 1; number <= 130; number += 1) await send(number);
    const alice = node.chat("alice");
    alice.channel(id).open();
    await until(() => texts(alice, id).length === 50);
    await alice.channel(id).loadOlder();
    await alice.channel(id).loadOlder();
    expect(texts(alice, id)).toEqual(await history(id));
    await alice.channel(id).loadAround(30);
    expect(texts(alice, id).at(-1)).toBe("m55");
    while (alice.channel(id).messages.getSnapshot().hasNewer) await alice.channel(id).loadNewer();
    expect(texts(alice, id).at(-1)).toBe("m130");
  });

  test("channels are created, joined and left", async () => {
    await channelOf("alice", "bob");
    const [alice, bob] = [node.chat("alice"), node.chat("bob")];
    await until(() => status(alice) === "online" && status(bob) === "online");
    const channel = await alice.createChannel({
      type: "group",
      name: "New",
      participant_ids: ["bob"],
    });
    channel.send("welcome");
    await until(() => info(bob, channel.id).lastMessage?.text === "welcome");
    expect(bob.channels.getSnapshot()[0]).toMatchObject({ id: channel.id, unread: 1 });
    await bob.call("channel.leave", { channel_id: channel.id });
    await until(() => !bob.channels.getSnapshot().some(({ id }) => id === channel.id));
  });

  test("after a long absence the missed messages and edits are read", async () => {
    const id = await channelOf("alice", "bob");
    const [alice, bob] = [node.chat("alice"), node.chat("bob", { firstWait: 1 })];
    alice.channel(id).open();
    bob.channel(id).open();
    const first = bob.channel(id).send("first");
    await until(() => texts(alice, id).includes("first"));
    // Alice is away, and the log of 20 events is trimmed meanwhile.
    node.blocked.add("alice");
    node.cut();
    await until(() => status(alice) === "offline");
    await bob.channel(id).edit(first, { text: "edited" });
    for (let number = 0; number < 60; number += 1) bob.channel(id).send(`m${number}`);
    await until(async () => (await history(id)).length === 61);
    node.blocked.clear();
    alice.wake();
    await until(() => status(alice) === "online" && texts(alice, id).length === 61);
    expect(texts(alice, id)).toEqual(await history(id));
    expect(texts(alice, id)[0]).toBe("edited");
  });

  test("short tokens are replaced on the live connection", async () => {
    await channelOf("carol");
    let tokens = 0;
    const provide = () => {
      tokens += 1;
      return node.token("carol", 3);
    };
    const carol = node.chat("carol", { token: provide });
    const seen = new Set<string>();
    await until(() => status(carol) === "online");
    carol.connection.subscribe(({ status }) => seen.add(status));
    await until(() => tokens >= 4);
    expect(seen).toEqual(new Set(["online"]));
  });

  test("messages arrive once and in order although connections are cut", async () => {
    const id = await channelOf("alice", "bob");
    const chats = ["alice", "bob"].map((user) => node.chat(user, { firstWait: 50 }));
    chats.forEach((chat) => chat.channel(id).open());
    for (let round = 0; round < 40; round += 1) {
      chats.forEach((chat, index) => chat.channel(id).send(`${index}.${round}`));
      if (round % 5 === 0) node.cut();
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    await until(async () => (await history(id)).length === 80);
    const expected = await history(id);
    expect(new Set(expected).size).toBe(80);
    for (const chat of chats) {
      await until(() => info(chat, id).number === 80 && status(chat) === "online");
      while (chat.channel(id).messages.getSnapshot().hasOlder) await chat.channel(id).loadOlder();
      expect(texts(chat, id)).toEqual(expected);
    }
    for (const sender of ["0.", "1."]) {
      const own = expected.filter((text) => text.startsWith(sender));
      expect(own).toEqual(own.map((_, round) => `${sender}${round}`));
    }
  });

  test.each(["SIGKILL", "SIGTERM"] as const)(
    "a client recovers from a restart of its node: %s",
    async (signal) => {
      const id = await channelOf("alice", "bob");
      const settings = { firstWait: 100, longestWait: 500 };
      const [alice, bob] = [node.chat("alice", settings), node.chat("bob", settings)];
      alice.channel(id).open();
      bob.channel(id).open();
      await until(() => status(alice) === "online" && status(bob) === "online");
      alice.channel(id).send("before");
      await until(() => texts(bob, id).includes("before"));
      const ended = node.kill(signal);
      alice.channel(id).send("during");
      await ended;
      await until(() => status(alice) === "offline");
      alice.channel(id).send("offline");
      expect(texts(alice, id).at(-1)).toBe("offline…");
      await node.start();
      await until(() => texts(bob, id).length === 3);
      await until(() => status(alice) === "online" && status(bob) === "online");
      expect(texts(alice, id)).toEqual(["before", "during", "offline"]);
      expect(texts(bob, id)).toEqual(await history(id));
    },
  );

  test("a revoked user's client ends, and says why", async () => {
    await channelOf("dave");
    const dave = node.chat("dave");
    await until(() => status(dave) === "online");
    await node.api("POST", "/users/dave/disconnect", { revoke: true });
    await until(() => status(dave) === "closed");
    expect(dave.connection.getSnapshot().why).toMatchObject({
      kind: "closed",
      closed: { code: 4004 },
    });
  });
});
