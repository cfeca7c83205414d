/** The messages between tabs over a BroadcastChannel. */

import type { Command, Resume, Update } from "../machine/io.ts";

export type TabMessage =
  /** A tab asks for the state, and passes its commands to the leader. */
  | { type: "hello"; from: string; commands: Command[]; resume: Resume }
  /** The answer: the state, after which further updates count. */
  | { type: "state"; to: string; updates: Update[] }
  /** Updates for all tabs. */
  | { type: "updates"; updates: Update[] }
  /** The replies to the calls of one tab. */
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
