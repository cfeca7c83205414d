/** What tabs tell each other over a BroadcastChannel. */

import type { Command, Resume, Update } from "../machine/io.ts";

export type TabMessage =
  /** A tab wants to know the state, and what the leader has to do for it. */
  | { type: "hello"; from: string; commands: Command[]; resume: Resume }
  /** The answer: the state, after which further updates count. */
  | { type: "state"; to: string; updates: Update[] }
  /** What all tabs learn. */
  | { type: "updates"; updates: Update[] }
  /** What one tab learns: the replies to its calls. */
  | { type: "replies"; to: string; updates: Update[] }
  | { type: "command"; from: string; command: Command }
  | { type: "wake" }
  | { type: "bye"; from: string }
  /** A tab has become the leader. */
  | { type: "leader" };

/** The part of BroadcastChannel that is used. */
export interface TabChannel {
  onmessage: ((event: { data: TabMessage }) => void) | null;
  postMessage(message: TabMessage): void;
  close(): void;
}
