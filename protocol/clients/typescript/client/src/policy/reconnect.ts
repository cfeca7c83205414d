/** Whether and how to connect again after a connection ended: the table of close codes. */

import type { ErrorBody } from "../protocol/generated.ts";
import { retryability } from "./errors.ts";

/** How a connection ended. */
export interface Closed {
  /** The code of the server's close frame. Undefined if the connection broke. */
  code?: number | undefined;
  reason: string;
}

/** What to do after a connection ended. `at_once` and `new_token` back off when they repeat. */
export type Reconnect = "at_once" | "backoff" | "new_token" | "never";

const NEVER = [4000, 4002, 4004, 4010];
const SAME_NODE = [4000, 4002, 4003, 4004, 4009, 4010, 4011];

/** Returns what to do after a session, or an attempt to connect, ended. */
export function reconnectAfter(closed: Closed, refusal?: ErrorBody): Reconnect {
  const { code } = closed;
  if (code === undefined && refusal) {
    if (refusal.code === "unauthenticated") return "new_token";
    const isFinal = refusal.code !== "limit_reached" && retryability(refusal) === "permanent";
    return isFinal ? "never" : "backoff";
  }
  if (code === 1001) return "at_once";
  if (code === 4003) return "new_token";
  return code !== undefined && NEVER.includes(code) ? "never" : "backoff";
}

/** Whether to try another node after this. */
export function elsewhere({ code }: Closed): boolean {
  return code === undefined || !SAME_NODE.includes(code);
}

/** The delay that the server asked for, in milliseconds. */
export function hintOf(closed: Closed, refusal?: ErrorBody): number {
  const match = /retry_after_ms=(\d+)$/.exec(closed.reason);
  return Math.max(match ? Number(match[1]) : 0, refusal?.retry_after_ms ?? 0);
}
