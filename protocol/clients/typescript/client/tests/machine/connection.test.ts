import { describe, expect, test } from "vitest";

import { entry, Peer } from "./peer.ts";

describe("connecting", () => {
  test("a client asks for a token, opens a socket and sends connect first", () => {
    const peer = new Peer({ client: "app/2" });
    const params = peer.connect();
    expect(params).toMatchObject({ token: "token 1", watch: "all", client: "app/2", resume: {} });
    expect(peer.status).toBe("online");
  });

  test("the bound of the backoff doubles up to the maximum, and a delay is any part of it", () => {
    const peer = new Peer();
    peer.random = 1;
    peer.pass(0);
    peer.token();
    const waits = [];
    for (let attempt = 0; attempt < 9; attempt += 1) {
      peer.take("open");
      peer.closed();
      waits.push(peer.seen("away")[0]?.wait);
      peer.pass(peer.machine.due() - peer.now);
    }
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
    expect(peer.status).toBe("offline");
    expect(peer.tokens, "the token provider is called once for many failures").toBe(1);
  });

  test("a session that lasted resets the backoff, and a short one does not", () => {
    const peer = new Peer();
    peer.connect();
    peer.closed(4500);
    peer.connect();
    peer.closed(4500);
    expect(peer.seen("away").map(({ wait }) => wait)).toEqual([250, 500]);
    peer.connect();
    peer.pass(10_000);
    peer.closed(4500);
    expect(peer.seen("away")[0]?.wait).toBe(250);
  });

  test("the server's hint is kept and the backoff is added to it", () => {
    const peer = new Peer();
    peer.connect();
    peer.closed(4012, "too many connections retry_after_ms=7000");
    expect(peer.seen("away")[0]?.wait).toBe(7250);
    peer.input({ type: "wake" });
    expect(peer.has("open"), "the hint holds also when the network is back").toBe(false);
    peer.pass(7000);
    expect(peer.has("open")).toBe(true);
  });

  test("a node that goes away is left at once, and the next time after a backoff", () => {
    const peer = new Peer({ addresses: 2 });
    peer.connect();
    peer.closed(1001);
    expect(peer.seen("away")[0]?.wait).toBe(0);
    peer.connect();
    peer.closed(1001);
    expect(peer.seen("away")[0]?.wait).toBeGreaterThan(0);
  });

  test("another node is tried after a failure", () => {
    const peer = new Peer({ addresses: 3 });
    peer.pass(0);
    peer.token();
    const addresses = [1, 2, 3].map(() => {
      const { address } = peer.take("open");
      peer.closed();
      peer.pass(peer.machine.due() - peer.now);
      return address;
    });
    expect(addresses).toEqual([1, 2, 0]);
  });

  test("an expired token is replaced at once, and the refused one is not used again", () => {
    const peer = new Peer();
    peer.connect();
    peer.closed(4003);
    expect(peer.connect().token).toBe("token 2");
  });

  test.each([4000, 4002, 4004, 4010])("the client ends for good after %i", (code) => {
    const peer = new Peer();
    peer.connect();
    peer.closed(code);
    expect(peer.seen("over")).toHaveLength(1);
    expect(peer.machine.due()).toBe(Infinity);
    expect(peer.status).toBe("closed");
  });

  test("a refused connect is decided by the close code that follows", () => {
    const peer = new Peer();
    peer.pass(0);
    peer.token();
    peer.take("open");
    peer.input({ type: "opened" });
    peer.refuse(peer.request("connect"), { code: "unauthenticated" });
    expect(peer.seen("away", "over")).toEqual([]);
    peer.closed(4003);
    expect(peer.seen("away")).toMatchObject([{ why: { refusal: { code: "unauthenticated" } } }]);
    expect(peer.connect().token).toBe("token 2");
  });

  test("a connect without an answer is given up", () => {
    const peer = new Peer();
    peer.pass(0);
    peer.token();
    peer.take("open");
    peer.pass(10_000);
    peer.take("close");
    expect(peer.seen("away")).toHaveLength(1);
  });

  test("a token provider that fails is asked again, unless the user signed out", () => {
    const peer = new Peer();
    peer.pass(0);
    peer.take("token");
    peer.input({ type: "no_token", message: "backend is down", isFinal: false });
    expect(peer.seen("away")).toMatchObject([{ why: { kind: "no_token" }, wait: 250 }]);
    peer.pass(250);
    peer.take("token");
    peer.input({ type: "no_token", message: "signed out", isFinal: true });
    expect(peer.seen("over")).toHaveLength(1);
  });

  test("events and replies of a socket that was left are ignored", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 1)] });
    peer.closed();
    peer.created("a", 2);
    peer.frame({ id: 99, result: {} });
    expect(peer.events()).toEqual([]);
  });
});

describe("tokens", () => {
  test("a token is replaced on the live connection before it expires", () => {
    const peer = new Peer();
    peer.connect();
    peer.passing("token.expiring", { expires_at: 60_000 });
    peer.reply(peer.request("ping"), { at: 20_000 });
    peer.pass(14_000);
    expect(peer.has("token")).toBe(false);
    peer.pass(2000);
    peer.token();
    const refresh = peer.request("token.refresh");
    expect(refresh.params).toEqual({ token: "token 2" });
    peer.reply(refresh, { expires_at: 100_000 });
    expect(peer.has("close")).toBe(false);
    peer.closed();
    expect(peer.connect().token, "the new token serves the next session").toBe("token 2");
  });

  test("a short token that the server warns of at once is not replaced without end", () => {
    const peer = new Peer();
    peer.connect();
    let clock = 0;
    for (let round = 0; round < 3; round += 1) {
      peer.passing("token.expiring", { expires_at: clock + 8000 });
      peer.reply(peer.request("ping"), { at: clock });
      expect(peer.has("token")).toBe(false);
      peer.pass(3000);
      clock += 3000;
      peer.token();
      peer.reply(peer.request("token.refresh"), { expires_at: clock + 8000 });
    }
    expect(peer.tokens).toBe(4);
  });

  test("a refresh that is refused for now is sent again, and a warned token is not reused", () => {
    const peer = new Peer();
    peer.connect();
    peer.passing("token.expiring", { expires_at: 60_000 });
    peer.reply(peer.request("ping"), { at: 0 });
    peer.pass(25_000);
    peer.token();
    peer.refuse(peer.request("token.refresh"), { code: "unavailable" });
    peer.pass(1000);
    peer.request("token.refresh");
    peer.closed();
    expect(peer.connect().token, "a token that was not accepted yet serves the next session").toBe(
      "token 2",
    );
  });

  test("without a new token the session lives until its own expires", () => {
    const peer = new Peer();
    peer.connect();
    peer.passing("token.expiring", { expires_at: 60_000 });
    peer.reply(peer.request("ping"), { at: 0 });
    peer.pass(25_000);
    peer.take("token");
    peer.input({ type: "no_token", message: "signed out", isFinal: true });
    expect(peer.status).toBe("online");
    peer.closed(4003);
    expect(peer.seen("over"), "it asks once more").toEqual([]);
  });
});

describe("liveness", () => {
  test("a silent connection is pinged and cut when nothing comes", () => {
    const peer = new Peer();
    peer.connect();
    peer.pass(25_000);
    peer.request("ping");
    peer.pass(9999);
    expect(peer.has("close")).toBe(false);
    peer.pass(1);
    peer.take("close");
    expect(peer.seen("away")).toMatchObject([{ why: { kind: "silent" } }]);
  });

  test("any frame counts as life", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 1)] });
    peer.pass(24_000);
    peer.created("a", 2);
    peer.pass(24_000);
    expect(peer.requests("ping")).toBe(0);
    peer.pass(1000);
    peer.request("ping");
    peer.pass(5000);
    peer.created("a", 3);
    peer.pass(5000);
    expect(peer.has("close"), "the ping is given up, not the session").toBe(false);
  });

  test("a page that is back pings at once, and soon gives up a dead session", () => {
    const peer = new Peer();
    peer.connect();
    peer.pass(1000);
    peer.input({ type: "wake" });
    peer.request("ping");
    peer.pass(4000);
    peer.take("close");
    expect(peer.seen("away")).toMatchObject([{ why: { kind: "silent" } }]);
  });

  test("a page that is back keeps a session that answers", () => {
    const peer = new Peer();
    peer.connect();
    peer.input({ type: "wake" });
    peer.reply(peer.request("ping"), { at: 1 });
    peer.pass(20_000);
    expect(peer.has("close")).toBe(false);
  });

  test("a page that is back does not wait for the backoff", () => {
    const peer = new Peer();
    peer.connect();
    peer.closed();
    peer.pass(10);
    expect(peer.has("open")).toBe(false);
    peer.input({ type: "wake" });
    expect(peer.has("open")).toBe(true);
  });

  test("a page that was frozen reads its socket before it gives up the session", () => {
    const peer = new Peer();
    peer.connect({ channels: [entry("a", 1)] });
    peer.pass(25_000);
    const ping = peer.request("ping");
    peer.now += 60_000;
    peer.input({ type: "tick" });
    expect(peer.has("close")).toBe(false);
    peer.reply(ping, { at: 1 });
    peer.pass(20_000);
    expect(peer.status).toBe("online");
  });

  test("a draining node is left within its window and without a backoff", () => {
    const peer = new Peer();
    peer.connect();
    peer.passing("server.draining", { reconnect_after_ms: 8000 });
    peer.pass(3999);
    expect(peer.has("close")).toBe(false);
    peer.pass(1);
    peer.take("close");
    expect(peer.seen("away")).toMatchObject([{ why: { kind: "draining" }, wait: 0 }]);
  });
});
