import { describe, expect, test } from "vitest";

import type { Message } from "../../src/protocol/generated.ts";
import { MessageWindow } from "../../src/state/window.ts";
import { message } from "../machine/peer.ts";

const numbers = (window: MessageWindow) => window.items().map(({ number }) => number);
const page = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => message("c", from + index));
const deleted = (number: number, seq: number) =>
  message("c", number, { seq, text: "", deleted_at: 9 });

describe("a window of messages", () => {
  test("the newest state of each message is kept, whatever the order", () => {
    for (let seed = 1; seed <= 50; seed += 1) {
      let state = seed;
      const random = (below: number) => (state = (state * 48_271) % 0x7fffffff) % below;
      const states: Message[] = [];
      const newest: Message[] = [];
      for (let number = 1; number <= 8; number += 1) {
        const seqs = Array.from({ length: 1 + random(4) }, () => 1 + random(50));
        const last = Math.max(...seqs);
        for (const seq of seqs)
          states.push(message("c", number, { seq, text: `${number}.${seq}` }));
        newest.push(message("c", number, { seq: last, text: `${number}.${last}` }));
      }
      states.push(...states.slice(0, random(states.length)));
      states.sort(() => random(3) - 1);
      const window = new MessageWindow();
      window.page([], false, true);
      for (const each of states) window.merge(each);
      expect(window.items(), `seed ${seed}`).toMatchObject(newest);
    }
  });

  test("a deleted message stays deleted", () => {
    const window = new MessageWindow();
    window.page(page(1, 2), false, true);
    window.merge(deleted(2, 9));
    window.merge(message("c", 2, { seq: 5 }));
    expect(window.items()[1]).toMatchObject({ text: "", deleted_at: 9 });
  });

  test("what lies behind a hole is shown when the hole is filled", () => {
    const window = new MessageWindow();
    window.page(page(1, 3), false, true);
    window.merge(message("c", 5));
    expect(numbers(window)).toEqual([1, 2, 3]);
    window.merge(message("c", 4));
    expect(numbers(window)).toEqual([1, 2, 3, 4, 5]);
  });

  test("older pages are joined, and a page from elsewhere takes the place of all", () => {
    const window = new MessageWindow();
    window.page(page(51, 100), true, true);
    window.page(page(21, 50), false, false);
    expect([window.first, window.last, window.hasOlder]).toEqual([21, 100, false]);
    window.page(page(500, 510), true, true);
    expect(numbers(window)).toEqual(page(500, 510).map(({ number }) => number));
    expect(window.hasOlder).toBe(true);
  });

  test("a window in the past does not take new messages", () => {
    const window = new MessageWindow();
    window.page(page(1, 10), false, false);
    window.merge(message("c", 11));
    expect(numbers(window)).toHaveLength(10);
    window.merge(message("c", 3, { seq: 99, text: "edited" }));
    expect(window.items()[2]?.text).toBe("edited");
  });

  test("another message with the same number takes the place of one that the store lost", () => {
    const window = new MessageWindow();
    window.page(page(1, 2), false, true);
    const other = message("c", 2, { id: "msg_other", seq: 1 });
    window.merge(other);
    expect(window.items()[1]).toMatchObject(other);
    expect(window.get(message("c", 2).id)).toBeUndefined();
  });

  test("reactions are ordered by seq, and own ones come from pages and events", () => {
    const window = new MessageWindow();
    window.page([message("c", 1, { seq: 7, own_reactions: ["x"] })], false, true);
    window.merge(message("c", 1, { seq: 8, reactions: { x: 2 } }));
    expect(window.items()[0]?.own_reactions).toEqual(["x"]);
    const reaction = { message_id: message("c", 1).id, number: 1, user_id: "u" };
    window.react({ ...reaction, emoji: "y", count: 3 }, 10, true, true);
    window.react({ ...reaction, emoji: "y", count: 1 }, 9, false, true);
    expect(window.items()[0]).toMatchObject({ seq: 10, reactions: { x: 2, y: 3 } });
    expect(window.items()[0]?.own_reactions).toEqual(["x", "y"]);
    window.react({ ...reaction, emoji: "y", count: 0 }, 11, true, false);
    expect(window.items()[0]).toMatchObject({ reactions: { x: 2 }, own_reactions: ["x"] });
  });

  test("an edit that is read after a later reaction was told is not lost", () => {
    const window = new MessageWindow();
    window.page([message("c", 1, { seq: 5 })], false, true);
    const { id } = message("c", 1);
    window.react({ message_id: id, number: 1, user_id: "u", emoji: "x", count: 1 }, 9, false, true);
    window.merge(message("c", 1, { seq: 7, text: "edited", reactions: { y: 2 } }));
    expect(window.items()[0]).toMatchObject({ seq: 9, text: "edited", reactions: { x: 1, y: 2 } });
    window.merge(message("c", 1, { seq: 9, text: "edited", reactions: { x: 1 } }));
    expect(window.items()[0]).toMatchObject({ seq: 9, reactions: { x: 1 } });
    expect(window.items()[0]?.reactions).not.toHaveProperty("y");
  });

  test("only the newest are kept when it is trimmed", () => {
    const window = new MessageWindow();
    window.page(page(1, 100), false, true);
    window.trim(50);
    expect([window.first, window.last, window.hasOlder]).toEqual([51, 100, true]);
    window.merge(message("c", 20));
    expect(window.items()).toHaveLength(50);
  });
});
