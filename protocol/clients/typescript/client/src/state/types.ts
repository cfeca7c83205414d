/** The state as the application sees it. */

import type { Position, Status, Why } from "../machine/io.ts";
import type {
  Channel,
  ErrorBody,
  Message,
  Participant,
  Role,
  User,
} from "../protocol/generated.ts";

/** The connection, for the person. */
export interface ConnectionState {
  status: Status;
  /** Why there is no session. */
  why: Why | undefined;
  /** When the next attempt begins, in milliseconds since the Unix epoch. */
  retryAt: number | undefined;
}

/** A channel in the list. */
export interface ChannelInfo {
  id: string;
  /** Undefined until it is known. */
  channel: Channel | undefined;
  role: Role | undefined;
  /** Number of the newest message, and of the newest one that the user has read. */
  number: number;
  read: number;
  unread: number;
  lastMessage: Message | undefined;
  /** Time of the last activity, in milliseconds since the Unix epoch. */
  at: number;
}

/** A message as it is shown. */
export interface ChatMessage extends Message {
  /**
   * `pending` and `failed` ones are the user's own that are not stored. Their `number` and `seq` are
   * 0, and they follow the stored ones.
   */
  status: "sent" | "pending" | "failed";
  /** Why it failed. */
  error?: ErrorBody;
}

/** The messages of a channel that are loaded. */
export interface Messages {
  /** By `number`, without a hole, then those that are not stored yet. */
  items: ChatMessage[];
  isLoaded: boolean;
  isLoading: boolean;
  hasOlder: boolean;
  hasNewer: boolean;
  /** Why the last page could not be loaded. */
  error: ErrorBody | undefined;
}

/** The participants of a channel that are loaded. */
export interface Participants {
  items: Participant[];
  isLoaded: boolean;
}

/** The state of a channel that is saved for the next start. */
export interface SavedChannel {
  info: ChannelInfo;
  /** The position of the last event that is in it. */
  position: Position;
  /** The newest messages without a hole, or none. */
  messages: Message[];
  hasOlder: boolean;
  /** The user's messages that are not stored. */
  pending: ChatMessage[];
}

/** The state of the user that is saved for the next start. */
export interface SavedUser {
  user: User;
  position: Position;
}
