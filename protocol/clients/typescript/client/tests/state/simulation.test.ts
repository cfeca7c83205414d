/** Random faults, after which what a user sees is what the server has. */

import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { Run } from "./run.ts";

/** Number of runs of each kind. */
const SEEDS = Number(process.env.CHAOS_SEEDS ?? 60);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

test.each([false, true])(
  "views equal the server's history after faults (failover: %s)",
  async (isDiverging) => {
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const run = new Run(seed, isDiverging);
      const ends = run.chats.map((chat) => chat.channel("general").open());
      for (let step = 0; step < 60; step += 1) await run.step();
      await run.heal();
      run.check(seed);
      if (!isDiverging) {
        const ids = run.server.channels.get("general")?.messages.map(({ id }) => id) ?? [];
        expect(ids.length, `each message is stored once, seed ${seed}`).toBe(run.sent.size);
        expect(new Set(ids), `seed ${seed}`).toEqual(run.sent);
      }
      ends.forEach((end) => end());
      run.chats.forEach((chat) => chat.close());
    }
  },
  120_000,
);
