import { readFileSync } from "node:fs";

import { decode, encode } from "@msgpack/msgpack";
import { describe, expect, test } from "vitest";

import { elsewhere, hintOf, reconnectAfter } from "../src/policy/reconnect.ts";
import {
  decodeFrame,
  encodeRequest,
  type EventFrame,
  type RequestFrame,
} from "../src/protocol/codec.ts";

interface Vector {
  name: string;
  json: Record<string, unknown>;
  msgpack: string;
}

const read = <T>(name: string): T[] =>
  JSON.parse(readFileSync(new URL(`../../../../vectors/${name}.json`, import.meta.url), "utf8"));
const bytesOf = (hex: string) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("shared vectors", () => {
  test.each(["replies", "events", "errors"])("%s decode to their values", (file) => {
    const vectors = read<Vector>(file);
    expect(vectors.length).toBeGreaterThan(10);
    for (const { name, json, msgpack } of vectors) {
      expect(decodeFrame(bytesOf(msgpack)), name).toEqual(json);
    }
  });

  test("requests encode to their values", () => {
    const vectors = read<Vector>("requests");
    expect(vectors.length).toBeGreaterThan(20);
    for (const { name, json, msgpack } of vectors) {
      expect(decode(encodeRequest(json as unknown as RequestFrame)), name).toEqual(json);
      expect(decode(bytesOf(msgpack)), name).toEqual(json);
    }
  });

  test("every close code is handled as the protocol requires", () => {
    const expected: Record<string, string> = {
      no: "never",
      "with a new token": "new_token",
      yes: "backoff",
      "yes, with resume": "backoff",
      "after back-off": "backoff",
      "at once, spread over reconnect_after_ms": "at_once",
    };
    const table = read<{ code: number; reconnect: string }>("close");
    for (const { code, reconnect } of table) {
      expect(reconnectAfter({ code, reason: "" }), String(code)).toBe(expected[reconnect]);
    }
    expect(reconnectAfter({ code: 4999, reason: "" })).toBe("backoff");
    expect(reconnectAfter({ reason: "cut" })).toBe("backoff");
  });
});

describe("frames", () => {
  test("a key that would change the prototype of an object is left out", () => {
    const hostile = "82a56576656e74a178a46461746181a95f5f70726f746f5f5f81a161c3";
    const frame = decodeFrame(bytesOf(hostile)) as EventFrame;
    expect(frame).toEqual({ event: "x", data: {} });
    expect(frame.data.a).toBeUndefined();
    const text = "a __proto__ in a text stays";
    expect(decodeFrame(bytesOf(hex(encode({ event: "x", data: { text } }))))).toMatchObject({
      data: { text },
    });
  });

  test.each(["", "c0", "80", "93010203", "81a2696401ff", "81a56576656e74a178"])(
    "bytes that are no frame are refused: %s",
    (hex) => expect(() => decodeFrame(bytesOf(hex))).toThrow(),
  );

  test("half of a surrogate pair is replaced, since it would end the connection", () => {
    const text = "cut \ud83d, whole \u{1f600}, \\ud83d as text, \\\\ud83d";
    const bytes = encodeRequest({ id: 1, method: "x", params: { text } });
    const expected = text.replace("cut \ud83d", "cut \ufffd");
    expect(decode(bytes)).toEqual({ id: 1, method: "x", params: { text: expected } });
  });

  test.each([NaN, Infinity, 1e20, 2n])("what JSON has not is refused: %s", (value) => {
    expect(() => encodeRequest({ id: 1, method: "x", params: { value } })).toThrow();
  });

  test("what is not of JSON becomes what it is in JSON", () => {
    const params = {
      at: new Date(0),
      call: () => {},
      list: [undefined, -1, 0.5, 2 ** 40, -(2 ** 40)],
    };
    expect(decode(encodeRequest({ id: 1, method: "x", params }))).toMatchObject({
      params: { at: "1970-01-01T00:00:00.000Z", list: [null, -1, 0.5, 2 ** 40, -(2 ** 40)] },
    });
  });

  test("fields that are undefined are left out", () => {
    const frame = { id: 1, method: "message.send", params: { text: "hi", metadata: undefined } };
    expect(decode(encodeRequest(frame))).toEqual({
      id: 1,
      method: "message.send",
      params: { text: "hi" },
    });
  });
});

describe("after a connection ended", () => {
  test("the longer delay that the server asks for counts", () => {
    const closed = { code: 4012, reason: "too many connections retry_after_ms=7000" };
    expect(hintOf(closed)).toBe(7000);
    expect(hintOf(closed, { code: "limit_reached", message: "", retry_after_ms: 9000 })).toBe(9000);
    expect(hintOf({ reason: "cut" })).toBe(0);
  });

  test("a refusal without a close frame is decided by its error", () => {
    const after = (code: string) => reconnectAfter({ reason: "cut" }, { code, message: "" });
    expect(after("unauthenticated")).toBe("new_token");
    expect(after("unavailable")).toBe("backoff");
    expect(after("limit_reached")).toBe("backoff");
    expect(after("of_a_later_version")).toBe("backoff");
    expect(after("forbidden")).toBe("never");
  });

  test("another node is tried unless this one would say the same", () => {
    expect(
      [undefined, 1001, 4008, 4012, 4500, 4999].map((code) => elsewhere({ code, reason: "" })),
    ).toEqual(Array(6).fill(true));
    expect([4002, 4003, 4009].some((code) => elsewhere({ code, reason: "" }))).toBe(false);
  });
});
