import { describe, expect, test } from "vitest";

import { callOf, type CallMode } from "../../src/machine/io.ts";
import { message, Peer } from "./peer.ts";

const send = (peer: Peer, channelId: string, number: number) => {
  const { id, text } = message(channelId, number);
  peer.command({ type: "send", channelId, message: { message_id: id, text } });
};
const acknowledge = (peer: Peer, channelId: string, number: number) => {
  const request = peer.request("message.send");
  expect(request.params).toMatchObject({ message_id: message(channelId, number).id });
  peer.reply(request, { message: message(channelId, number) });
};

describe("messages", () => {
  test("messages of a channel are sent one after the other, and other channels do not wait", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    send(peer, "a", 2);
    send(peer, "b", 3);
    expect(peer.requests("message.send")).toBe(2);
    acknowledge(peer, "a", 1);
    expect(peer.requests("message.send")).toBe(2);
    acknowledge(peer, "b", 3);
    acknowledge(peer, "a", 2);
    expect(peer.seen("sent").map(({ message }) => message.number)).toEqual([1, 3, 2]);
  });

  test("a message without an answer is sent again with its id", () => {
    const peer = new Peer();
    send(peer, "a", 1);
    peer.connect();
    const first = peer.request("message.send");
    peer.closed();
    peer.connect();
    expect(peer.request("message.send").params).toEqual(first.params);
  });

  test("messages keep their order when the first is refused for now", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    send(peer, "a", 2);
    peer.refuse(peer.request("message.send"), { code: "unavailable" });
    peer.pass(124);
    expect(peer.requests("message.send")).toBe(0);
    peer.pass(1);
    acknowledge(peer, "a", 1);
    acknowledge(peer, "a", 2);
  });

  test("a refused message fails, and the next one is sent", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    send(peer, "a", 2);
    peer.refuse(peer.request("message.send"), { code: "forbidden" });
    expect(peer.seen("failed")).toMatchObject([{ error: { code: "forbidden" }, wasSent: true }]);
    acknowledge(peer, "a", 2);
  });

  test("a message fails after five internal errors", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    for (let round = 0; round < 5; round += 1) {
      peer.refuse(peer.request("message.send"), { code: "of_a_later_version" });
      peer.pass(10_000);
    }
    expect(peer.seen("failed")).toHaveLength(1);
  });

  test("a rate limit holds for all requests until its time", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    peer.refuse(peer.request("message.send"), { code: "rate_limited", retry_after_ms: 2000 });
    send(peer, "b", 2);
    peer.pass(2900);
    expect(peer.requests("message.send")).toBe(0);
    peer.pass(200);
    expect(peer.requests("message.send")).toBe(2);
  });

  test("the outbox is bounded", () => {
    const peer = new Peer({ outbox: 2 });
    for (const number of [1, 2, 3]) send(peer, "a", number);
    expect(peer.seen("failed")).toMatchObject([
      { error: { code: "limit_reached" }, wasSent: false },
    ]);
  });

  test("messages fail when the client ends, and say whether they may be stored", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    send(peer, "a", 2);
    peer.command({ type: "close" });
    peer.take("close");
    send(peer, "a", 3);
    expect(peer.seen("failed").map(({ wasSent }) => wasSent)).toEqual([true, false, false]);
  });

  test("a request without a reply is given up although the session lives", () => {
    const peer = new Peer();
    peer.connect();
    send(peer, "a", 1);
    const lost = peer.request("message.send");
    peer.pass(5000);
    peer.passing("typing", {}, "a");
    peer.pass(5250);
    const again = peer.request("message.send");
    peer.reply(lost, { message: message("a", 1) });
    expect(peer.seen("sent"), "a late reply is ignored").toEqual([]);
    peer.reply(again, { message: message("a", 1) });
    expect(peer.seen("sent")).toHaveLength(1);
  });
});

describe("calls", () => {
  const call = (peer: Peer, mode: CallMode) =>
    peer.command({
      type: "call",
      callId: 7,
      mode,
      call: callOf("user.get", { user_ids: ["bob"] }),
    });

  test("a call is answered by its reply or its error", () => {
    const peer = new Peer();
    peer.connect();
    call(peer, "once");
    peer.reply(peer.request("user.get"), { items: [] });
    call(peer, "once");
    peer.refuse(peer.request("user.get"), { code: "unavailable" });
    expect(peer.seen("reply").map(({ outcome }) => outcome)).toMatchObject([
      { result: { items: [] } },
      { error: { code: "unavailable" } },
    ]);
  });

  test("a call that may be repeated waits for the next session", () => {
    const peer = new Peer();
    call(peer, "retry");
    peer.connect();
    peer.request("user.get");
    peer.closed();
    peer.connect();
    peer.refuse(peer.request("user.get"), { code: "unavailable" });
    peer.pass(300);
    peer.reply(peer.request("user.get"), { items: [] });
    expect(peer.seen("reply")).toHaveLength(1);
  });

  test("a call that may not be repeated fails with its connection", () => {
    const peer = new Peer();
    peer.connect();
    call(peer, "once");
    peer.request("user.get");
    peer.closed();
    expect(peer.seen("reply")).toMatchObject([{ outcome: { error: { code: "unavailable" } } }]);
  });

  test("a call waits a while for a connection", () => {
    const peer = new Peer();
    call(peer, "once");
    peer.pass(10_000);
    expect(peer.seen("reply")).toMatchObject([{ outcome: { error: { code: "unavailable" } } }]);
  });

  test("a call that is worth nothing later fails at once without a session", () => {
    const peer = new Peer();
    call(peer, "now");
    expect(peer.seen("reply")).toHaveLength(1);
  });
});
