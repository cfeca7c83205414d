import { describe, expect, test } from "vitest";

import { entry, message, Peer } from "./peer.ts";

const track = (peer: Peer, channelId: string) =>
  peer.command({ type: "track", channelId, isTracked: true });

describe("positions", () => {
  test("a session resumes from the last event of each stream", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 5), entry("b", 7)] });
    peer.created("a", 6);
    peer.event("user.updated", undefined, 4, { user: {} });
    peer.closed();
    expect(
      peer.connect({ user_position: [4, 40], channels: [entry("a", 6), entry("b", 7)] }),
    ).toMatchObject({
      resume: { a: [6, 60], b: [7, 70] },
      user_position: [4, 40],
    });
  });

  test("a client advances by events alone, and catches up to the head of the entry", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 5)] });
    peer.closed();
    peer.connect({ channels: [entry("a", 8)] });
    expect(peer.status).toBe("catching_up");
    peer.created("a", 6);
    peer.created("a", 7);
    expect(peer.status).toBe("catching_up");
    peer.created("a", 8);
    expect(peer.status).toBe("online");
    peer.closed();
    expect(peer.connect().resume).toEqual({ a: [8, 80] });
  });

  test("positions that the application kept are resumed", () => {
    const peer = new Peer({ resume: { userPosition: [2, 20], channels: { a: [4, 40] } } });
    expect(peer.connect({ channels: [entry("a", 4)] })).toMatchObject({
      resume: { a: [4, 40] },
      user_position: [2, 20],
    });
  });

  test("channels beyond 200 are subscribed to after connect, the latest first", () => {
    const channels = Object.fromEntries(
      Array.from({ length: 450 }, (_, n) => [`c${n}`, [n + 1, n + 1] as [number, number]]),
    );
    const peer = new Peer({ resume: { channels } });
    const params = peer.connect({
      channels: Array.from({ length: 200 }, (_, n) => entry(`c${n + 250}`, n + 251)),
    });
    expect(Object.keys(params.resume as object)).toHaveLength(200);
    expect(params.resume).toHaveProperty("c449");
    for (const size of [200, 50]) {
      const subscribe = peer.request("channel.subscribe");
      const asked = subscribe.params.channels as Record<string, [number, number]>;
      expect(Object.keys(asked)).toHaveLength(size);
      peer.reply(subscribe, {
        channels: Object.entries(asked).map(([id, [seq]]) => entry(id, seq)),
      });
    }
    expect(peer.requests("channel.subscribe")).toBe(0);
    expect(peer.status).toBe("online");
  });

  test("an event that comes twice is not passed on, and a hole is read", () => {
    const peer = new Peer();
    track(peer, "a");
    peer.connect({ channels: [entry("a", 5)] });
    peer.created("a", 5);
    expect(peer.seen("anomaly")).toHaveLength(1);
    peer.created("a", 8);
    expect(peer.seen("anomaly")).toHaveLength(1);
    const list = peer.request("message.list");
    expect(list.params).toMatchObject({ channel_id: "a", changed_after: 5 });
    peer.reply(list, { items: [message("a", 6), message("a", 7)], more: false });
    expect(peer.seen("messages", "recovered").map(({ type }) => type)).toEqual([
      "messages",
      "recovered",
    ]);
  });

  test("an unknown event advances the position", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 5)] });
    peer.event("poll.created", "a", 6, {});
    peer.created("a", 7);
    expect(peer.events()).toEqual([
      ["poll.created", 6],
      ["message.created", 7],
    ]);
  });
});

describe("subscriptions", () => {
  test("a channel that the user was added to is followed from its entry", () => {
    const peer = new Peer();
    peer.connect();
    peer.event("channel.added", undefined, 4, { entry: entry("a", 9) });
    peer.created("a", 10);
    expect(peer.events()).toEqual([
      ["channel.added", 4],
      ["message.created", 10],
    ]);
    peer.event("channel.removed", undefined, 5, { channel_id: "a" });
    peer.closed();
    expect(peer.connect().resume).toEqual({});
  });

  test("a channel that is opened is subscribed to from now on", () => {
    const peer = new Peer();
    peer.connect({ more: true });
    peer.command({ type: "follow", channelId: "z" });
    const subscribe = peer.request("channel.subscribe");
    expect(subscribe.params).toEqual({ channels: { z: [] } });
    peer.created("z", 4);
    peer.reply(subscribe, { channels: [entry("z", 4)] });
    peer.created("z", 5);
    expect(peer.seen("joined")).toHaveLength(1);
    expect(peer.events(), "what comes before the reply is in the entry").toEqual([
      ["message.created", 5],
    ]);
  });

  test("a channel that is opened before the session is part of connect", () => {
    const peer = new Peer();
    peer.command({ type: "follow", channelId: "z" });
    expect(peer.connect({ channels: [entry("z", 4)] }).resume).toEqual({ z: [] });
    expect(peer.requests("channel.subscribe")).toBe(0);
    expect(peer.status).toBe("online");
  });

  test("a refused channel is lost, and one that is refused for now is requested again", () => {
    const peer = new Peer();
    peer.connect();
    peer.command({ type: "follow", channelId: "gone" });
    peer.command({ type: "follow", channelId: "later" });
    const first = peer.request("channel.subscribe");
    peer.reply(first, {
      channels: [{ channel_id: "gone", error: { code: "not_found", message: "no" } }],
    });
    expect(peer.seen("lost")).toMatchObject([{ channelId: "gone" }]);
    const error = { code: "unavailable", message: "no" };
    peer.reply(peer.request("channel.subscribe"), { channels: [{ channel_id: "later", error }] });
    expect(peer.requests("channel.subscribe")).toBe(0);
    peer.pass(250);
    peer.reply(peer.request("channel.subscribe"), { channels: [entry("later", 1)] });
    expect(peer.status).toBe("online");
  });

  test("a subscription that the connection interrupts is part of the next connect", () => {
    const peer = new Peer();
    peer.connect();
    peer.command({ type: "follow", channelId: "z" });
    peer.request("channel.subscribe");
    peer.closed();
    expect(peer.connect({ channels: [entry("z", 1)] }).resume).toEqual({ z: [] });
    expect(peer.requests("channel.subscribe")).toBe(0);
  });

  test("channels of which only positions are known are read from the list", () => {
    const peer = new Peer();
    const { channel: _, role: __, ...positions } = entry("b", 3);
    peer.connect({ channels: [entry("a", 5), positions] });
    const list = peer.request("channel.list");
    peer.reply(list, { items: [entry("a", 5)], cursor: "next" });
    const more = peer.request("channel.list");
    expect(more.params).toMatchObject({ cursor: "next" });
    peer.reply(more, { items: [entry("b", 3)], cursor: "further" });
    expect(peer.requests("channel.list"), "the others are not needed").toBe(0);
    expect(peer.seen("recovered")).toEqual([]);
  });
});

describe("gaps", () => {
  test("after a trimmed log the changes are read to their end", () => {
    const peer = new Peer();
    track(peer, "a");
    peer.connect({ channels: [entry("a", 5)] });
    peer.closed();
    peer.connect({ channels: [entry("a", 9, { gap: "trimmed" })] });
    expect(peer.seen("gap")).toMatchObject([{ channelId: "a", gap: "trimmed", to: [9, 90] }]);
    expect(peer.status).toBe("catching_up");
    peer.created("a", 10);
    const first = peer.request("message.list");
    expect(first.params).toMatchObject({ changed_after: 5, limit: 200 });
    peer.reply(first, { items: [message("a", 6), message("a", 7)], more: true });
    const second = peer.request("message.list");
    expect(second.params).toMatchObject({ changed_after: 7 });
    peer.reply(second, { items: [message("a", 9)], more: false });
    expect(peer.seen("recovered")).toMatchObject([{ channelId: "a" }]);
    expect(peer.status).toBe("online");
  });

  test("of a history that diverged the newest page is read", () => {
    const peer = new Peer();
    track(peer, "a");
    peer.connect({ channels: [entry("a", 5)] });
    peer.passing("channel.gap", { reason: "diverged", seq: 3, at: 33 }, "a");
    const list = peer.request("message.list");
    expect(list.params.changed_after).toBeUndefined();
    peer.reply(list, { items: [message("a", 2)], more: true });
    expect(peer.seen("messages")).toMatchObject([{ newest: { more: true } }]);
    peer.created("a", 4);
    expect(peer.events()).toEqual([["message.created", 4]]);
  });

  test("an interrupted recovery goes on in the next session", () => {
    const peer = new Peer();
    track(peer, "a");
    peer.connect({ channels: [entry("a", 5)] });
    peer.passing("channel.gap", { reason: "trimmed", seq: 9, at: 90 }, "a");
    peer.request("message.list");
    peer.closed();
    peer.connect({ channels: [entry("a", 9)] });
    peer.reply(peer.request("message.list"), { items: [], more: false });
    expect(peer.seen("recovered")).toHaveLength(1);
  });

  test("a second gap includes what the first had still to read", () => {
    const peer = new Peer();
    track(peer, "a");
    peer.connect({ channels: [entry("a", 5)] });
    peer.passing("channel.gap", { reason: "trimmed", seq: 9, at: 90 }, "a");
    const first = peer.request("message.list");
    peer.passing("channel.gap", { reason: "trimmed", seq: 20, at: 200 }, "a");
    peer.reply(first, { items: [message("a", 6)], more: false });
    expect(peer.seen("recovered"), "a reply to the first is ignored").toEqual([]);
    expect(peer.request("message.list").params).toMatchObject({ changed_after: 5 });
  });

  test("a channel without messages is known by its entry, or by its newest message", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 5)] });
    peer.closed();
    peer.connect({ channels: [entry("a", 9, { gap: "trimmed" })] });
    expect(peer.seen("recovered")).toHaveLength(1);
    expect(peer.requests("message.list")).toBe(0);
    peer.passing("channel.gap", { reason: "trimmed", seq: 20, at: 200 }, "a");
    expect(peer.request("message.list").params).toMatchObject({ limit: 1 });
  });

  test("after very many changes the newest messages are read instead", () => {
    const peer = new Peer();
    track(peer, "a");
    peer.connect({ channels: [entry("a", 5)] });
    peer.passing("channel.gap", { reason: "trimmed", seq: 9000, at: 9000 }, "a");
    let seq = 5;
    for (let page = 0; page < 10; page += 1) {
      seq += 200;
      peer.reply(peer.request("message.list"), { items: [message("a", seq)], more: true });
    }
    expect(peer.seen("gap").map(({ gap }) => gap)).toEqual(["trimmed", "diverged"]);
    const newest = peer.request("message.list");
    expect(newest.params.changed_after).toBeUndefined();
    peer.reply(newest, { items: [message("a", 9000)], more: true });
    expect(peer.seen("recovered")).toHaveLength(1);
  });

  test("after a gap of the user's own stream all channels are read", () => {
    const peer = new Peer();
    peer.connect();
    peer.closed();
    peer.connect({ user_position: [40, 400], user_gap: "trimmed" });
    expect(peer.seen("gap")).toMatchObject([{ gap: "trimmed", to: [40, 400] }]);
    peer.reply(peer.request("channel.list"), { items: [entry("a", 1)], cursor: "next" });
    peer.closed();
    peer.connect({ user_position: [40, 400] });
    const again = peer.request("channel.list");
    expect(again.params.cursor, "the list starts over").toBeUndefined();
    peer.reply(again, { items: [entry("a", 1)] });
    expect(peer.seen("recovered")).toHaveLength(1);
  });

  test("a gap of the user's own stream in a session leads to a new session", () => {
    const peer = new Peer();
    peer.connect();
    peer.passing("channel.gap", { reason: "trimmed", seq: 40, at: 400 });
    peer.take("close");
    expect(peer.connect({ user_position: [40, 400], user_gap: "trimmed" }).user_position).toEqual([
      3, 30,
    ]);
  });

  test("a session with all its subscriptions does not follow another channel", () => {
    const peer = new Peer();
    peer.connect();
    peer.event("channel.added", undefined, 4, { entry: entry("a", 9) });
    peer.passing("channel.gap", { reason: "limit_reached", seq: 9, at: 90 }, "a");
    expect(peer.seen("gap")).toMatchObject([{ gap: "limit_reached" }]);
    peer.closed();
    expect(peer.connect().resume).toEqual({});
  });
});
