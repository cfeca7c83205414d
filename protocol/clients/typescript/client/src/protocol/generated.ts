// Generated from the declarations in protocol/src. Do not edit:
// CHAOS_TYPES=write cargo test -p chaos-protocol typescript

/** Codes of errors. A client treats an unknown one like `internal`. */
export type ErrorCode =
  | "bad_request"
  | "unauthenticated"
  | "forbidden"
  | "not_found"
  | "method_not_allowed"
  | "conflict"
  | "precondition_failed"
  | "too_large"
  | "unsupported"
  | "limit_reached"
  | "rate_limited"
  | "internal"
  | "unavailable";

/** No parameters. */
export type NoParams = Record<string, never>;

/** The requests of a session, by method. */
export interface Methods {
  /** Opens the session. The first request of every connection. The reply lists the user's channels; events follow without further requests. */
  "connect": { params: Connect; result: Connected };
  /** Replaces the session's token. The new token belongs to the same user. It is in effect from the reply on. */
  "token.refresh": { params: RefreshToken; result: Refreshed };
  /** Returns the server's clock. For clients that cannot see WebSocket pings. */
  "ping": { params: NoParams; result: Pong };
  /** Subscribes the session to channels. At most 200, each from a position, or from now on (`[]`). Replayed events follow the reply. */
  "channel.subscribe": { params: Subscribe; result: Subscribed };
  /** Ends subscriptions of the session. */
  "channel.unsubscribe": { params: Unsubscribe; result: Empty };
  /** Watches whether users are online. At most 100 users, in place of those watched before. An unknown id is reported as offline and is not watched: after the user was created, the client has to watch it again. */
  "presence.watch": { params: UserIds; result: Presences };
  /** Lists the caller's channels. Last active first. Reading all pages returns every channel that the user was in during that time. A channel that became active meanwhile, or shortly before, may be returned twice. */
  "channel.list": { params: ListPage; result: EntryList };
  /** Creates a channel. The creator becomes its owner. If the two users have a `direct` channel already, that one is returned. */
  "channel.create": { params: CreateChannel; result: { channel: Channel } };
  /** Changes a channel. */
  "channel.update": { params: { channel_id: ChannelId } & UpdateChannel; result: { channel: Channel } };
  /** Deletes a channel. */
  "channel.delete": { params: { channel_id: ChannelId }; result: Empty };
  /** Joins an open or broadcast channel. Over HTTP: `participant.add` with the user's own id. */
  "channel.join": { params: { channel_id: ChannelId }; result: { participant: Participant } };
  /** Leaves a channel. Over HTTP: `participant.remove` with the user's own id. */
  "channel.leave": { params: { channel_id: ChannelId }; result: Empty };
  /** Adds a participant. The default `role` is `member`. A user joins by adding its own id, as a `member`. A user who is a participant already is returned unchanged. */
  "participant.add": { params: { channel_id: ChannelId } & AddParticipant; result: { participant: Participant } };
  /** Lists a channel's participants. With their read positions, by user id. */
  "participant.list": { params: { channel_id: ChannelId } & ListPage; result: List };
  /** Changes a participant's role. */
  "participant.update": { params: { channel_id: ChannelId; user_id: UserId } & UpdateParticipant; result: { participant: Participant } };
  /** Removes a participant. A user leaves by removing its own id. */
  "participant.remove": { params: { channel_id: ChannelId; user_id: UserId }; result: Empty };
  /** Sends a message. Sending again with the same `message_id` returns the first message. An app key names the `sender_id`, unless `kind` is `system`. */
  "message.send": { params: { channel_id: ChannelId } & SendMessage; result: { message: Message } };
  /** Lists messages. At most one of `before`, `after` (by `number`) and `changed_after` (by `seq`). Without any of them, the newest page. */
  "message.list": { params: { channel_id: ChannelId } & ListMessages; result: MessagePage };
  /** Edits a message. An edit that changes nothing returns the message as it is and publishes no event. */
  "message.edit": { params: { channel_id: ChannelId; message_id: MessageId } & EditMessage; result: { message: Message } };
  /** Deletes a message. The message keeps its number and loses its content. Deleting it again changes nothing. */
  "message.delete": { params: { channel_id: ChannelId; message_id: MessageId }; result: Empty };
  /** Adds a reaction. `count` is the number of users who give this reaction now. An app key names the `sender_id`: any user of the app. */
  "reaction.add": { params: { channel_id: ChannelId; emoji: string; message_id: MessageId }; result: Count };
  /** Removes a reaction. `count` is the number of users who still give this reaction. An app key names the `sender_id`. */
  "reaction.remove": { params: { channel_id: ChannelId; emoji: string; message_id: MessageId }; result: Count };
  /** Moves the read position forwards. At most to the channel's `number`. An app key names the `user_id`: a participant. */
  "read.mark": { params: { channel_id: ChannelId } & MarkRead; result: ReadResult };
  /** Moves the read position to just before a message. To `number − 1`, backwards too, and at most to the channel's `number`. An app key names the `user_id`: a participant. */
  "read.unmark": { params: { channel_id: ChannelId } & UnmarkRead; result: ReadResult };
  /** Tells the other participants that the user types, or stopped. A start ends by itself after 6 seconds, so a client repeats it every 3. The others receive at most one start per user, channel and second, and the end of each start that they received. */
  "typing": { params: { channel_id: ChannelId } & Typing; result: Empty };
  /** Reads profiles. At most 100. Unknown ids are left out. `more` is true if the reply would be too long and ends early. */
  "user.get": { params: UserIds; result: Users };
  /** Changes a user. A user may change itself, except `bot`. Over WebSocket the user is always the caller. */
  "user.update": { params: UpdateUser; result: { user: User } };
}

/** Events that are stored, with `seq` and `at`, by name. */
export interface DurableEvents {
  "message.created": { message: Message };
  "message.updated": { message: Message };
  "message.deleted": { message: Message };
  "reaction.added": Reaction;
  "reaction.removed": Reaction;
  "participant.added": { participant: Participant };
  "participant.updated": { participant: Participant };
  "participant.removed": { participant: Participant };
  "channel.updated": { channel: Channel };
  "channel.deleted": { channel: Channel };
  "channel.added": { entry: Entry };
  "channel.removed": { channel_id: ChannelId };
  "user.updated": { user: User };
}

/** Events that are not stored, by name. */
export interface PassingEvents {
  "typing": TypingData;
  "presence.changed": PresenceData;
  "read.marked": ReadData;
  "channel.gap": GapData;
  "token.expiring": ExpiringData;
  "server.draining": DrainingData;
}

/** `participant.add`, `POST /v1/channels/{channel}/participants`. */
export interface AddParticipant {
  role?: Role;
  /** User to add. */
  user_id: UserId;
}

/** An id: `app_…`. */
export type AppId = string;

/** An attachment of a message: a URL and what the app says about it. */
export interface Attachment {
  /** Duration in milliseconds. */
  duration_ms?: number;
  /** Height in pixels. */
  height?: number;
  /** Free data. */
  metadata?: Metadata;
  /** Media type. */
  mime?: string;
  /** File name. */
  name?: string;
  /** Size in bytes. */
  size?: number;
  /** Type in the terms of the app (`image`, `file`, …): 1 to 64 characters. */
  type: string;
  upload_id?: UploadId;
  /** http or https URL of up to 2,048 characters. */
  url?: string;
  /** Width in pixels. */
  width?: number;
}

/** A channel: participants exchange messages in it. */
export interface Channel {
  /** http or https URL of a picture. */
  banner?: string;
  /** Time of creation, in milliseconds since the Unix epoch; set by the store. */
  created_at: number;
  creator_id?: UserId;
  /** Text of up to 2,048 characters, line breaks included. */
  description?: string;
  /** http or https URL of a picture. */
  icon?: string;
  /** Id. */
  id: ChannelId;
  /** Free data. */
  metadata: Metadata;
  /** Single line of up to 200 characters. */
  name?: string;
  /** Number of participants. */
  participant_count: number;
  /** Type: who may find the channel, join it and send in it. */
  type: ChannelType;
}

/** An id: `chn_…`, or one that the app has chosen. */
export type ChannelId = string;

/** Type of a channel: who may find it, join it and send in it. */
export type ChannelType = "direct" | "group" | "open" | "broadcast";

/** `connect`. */
export interface Connect {
  /** Name and version of the client. */
  client?: string;
  /** Fields of each entry. */
  entries?: Entries;
  /** Channels to resume, each from a position. */
  resume?: Record<string, Cursor>;
  /** A user token. */
  token: string;
  user_position?: Cursor;
  /** Which channels the session is subscribed to besides those in `resume`. */
  watch?: Watch;
}

/** Result of `connect`. */
export interface Connected {
  /** App of the user. */
  app_id: AppId;
  /** Channels that the session is subscribed to, and those that failed. */
  channels: Array<EntryResult>;
  /** Environment of the user. */
  environment: Environment;
  /** Features of the node beyond version 1. */
  features: Array<string>;
  /** Milliseconds of silence after which the server sends a ping. */
  heartbeat_ms: number;
  /** Limits that concern clients, by name. */
  limits: Record<string, number>;
  /** Whether the user has channels that the session is not subscribed to. */
  more: boolean;
  /** Id of the session. */
  session_id: SessionId;
  /** User of the session. */
  user: User;
  user_gap?: Gap;
  /** Position of the newest event of the user's own stream: `[seq, at]`. */
  user_position: [number, number];
}

/** Number of users who give a reaction. */
export interface Count {
  /** Number after this request. */
  count: number;
}

/** `channel.create`, `POST /v1/channels`. */
export interface CreateChannel {
  /** http or https URL of a picture. */
  banner?: string;
  /** Text of one or more lines. */
  description?: string;
  /** http or https URL of a picture. */
  icon?: string;
  /** Free data. */
  metadata?: Metadata;
  /** Single line. */
  name?: string;
  /** Initial participants besides the creator. */
  participant_ids?: Array<UserId>;
  /** Type: who may find the channel, join it and send in it. */
  type: ChannelType;
}

/** A position `[seq, at]`, or `[]` for "from now on". */
export type Cursor = [] | [seq: number, at: number];

/** The data of `server.draining`. */
export interface DrainingData {
  /** Milliseconds after which the client reconnects. */
  reconnect_after_ms: number;
}

/** `message.edit`, `PATCH …/messages/{message}`: a merge patch. */
export interface EditMessage {
  /** The new attachments. */
  attachments?: Array<Attachment> | null;
  /** The new mentions. */
  mention_ids?: Array<UserId> | null;
  /** Merge patch of the free data. */
  metadata?: Record<string, unknown> | null;
  /** The new text. */
  text?: string | null;
}

/** An empty result. */
export type Empty = Record<string, never>;

/** Fields of an entry. */
export type Entries = "full" | "positions";

/** A channel in a user's list of channels, with the user's place in it. */
export interface Entry {
  /** `at` of that event. */
  at: number;
  channel?: Channel;
  /** Id of the channel. */
  channel_id: ChannelId;
  gap?: Gap;
  last_message?: Message;
  /** Number of the newest message. */
  number: number;
  /** Number of participants; absent in an entry of positions. */
  participant_count?: number;
  /** Number of the newest message that the user has read. */
  read: number;
  role?: Role;
  /** `seq` of the newest durable event of the channel. */
  seq: number;
  /** `number − read`. */
  unread?: number;
}

/** A page of a user's channels. */
export interface EntryList {
  /** Cursor of the next page; absent on the last one. */
  cursor?: string;
  /** Last active first. */
  items: Array<Entry>;
}

/** Result of a subscription to one channel. */
export type EntryResult = FailedEntry | Entry;

/** One of the two environments of an app. */
export type Environment = "live" | "test";

/** An error in a reply or an HTTP response. */
export interface ErrorBody {
  /** Stable code. */
  code: string;
  /** The invalid field and the reason. */
  details?: Record<string, unknown>;
  /** Description for people. */
  message: string;
  /** Milliseconds after which a retry may succeed. */
  retry_after_ms?: number;
}

/** The data of `token.expiring`. */
export interface ExpiringData {
  /** Expiry of the token, in milliseconds since the Unix epoch. */
  expires_at: number;
}

/** A requested channel that has no entry. */
export interface FailedEntry {
  /** Id of the requested channel. */
  channel_id: ChannelId;
  /** Why there is no entry. */
  error: ErrorBody;
}

/** Why a stream cannot be continued from a position. */
export type Gap = "trimmed" | "diverged" | "limit_reached";

/** The data of `channel.gap`. */
export interface GapData {
  /** `at` of that position. */
  at: number;
  /** Why the stream does not continue. */
  reason: Gap;
  /** `seq` of the position that the subscription continues from. */
  seq: number;
}

/** A page of a list. */
export interface List {
  /** Cursor of the next page; absent on the last one. */
  cursor?: string;
  /** The items. */
  items: Array<Participant>;
}

/** Which messages to list: at most one of the first three; without any, the newest. */
export interface ListMessages {
  /** Messages with a higher `number`. */
  after?: number;
  /** Messages with a lower `number`. */
  before?: number;
  /** Messages that changed after the event with this `seq`. */
  changed_after?: number;
  /** Maximum number of items; default 50. A page never has more than `limits.page`. */
  limit?: number;
}

/** Which page of a list to return. */
export interface ListPage {
  /** The `cursor` of the previous page. */
  cursor?: string;
  /** Maximum number of items; default 50. A page never has more than `limits.page`. */
  limit?: number;
}

/** `read.mark`. */
export interface MarkRead {
  /** Number of the newest message that the user has read. */
  number: number;
}

/** A message. */
export interface Message {
  /** At most 32 attachments. */
  attachments: Array<Attachment>;
  /** Id of the channel. */
  channel_id: ChannelId;
  /** Time of creation, in milliseconds since the Unix epoch. */
  created_at: number;
  /** Time of the deletion. */
  deleted_at?: number;
  /** Time of the last edit. */
  edited_at?: number;
  /** Id. */
  id: MessageId;
  /** Kind of the message. */
  kind: MessageKind;
  /** Mentioned users, at most 100. */
  mention_ids: Array<UserId>;
  /** Free data. */
  metadata: Metadata;
  /** Position among the channel's messages: 1, 2, 3 … without gaps. */
  number: number;
  /** The caller's own reactions; in `message.list` only. */
  own_reactions?: Array<string>;
  /** Number of users who give each reaction. */
  reactions: Record<string, number>;
  reply_to_id?: MessageId;
  sender_id?: UserId;
  /** `seq` of the event that last changed it. Of two states, the one with the greater `seq` is newer. */
  seq: number;
  /** Text; empty when deleted. */
  text: string;
}

/** An id: `msg_…`. */
export type MessageId = string;

/** Kind of a message. */
export type MessageKind = "text" | "system";

/** A page of messages. */
export interface MessagePage {
  /** By `number` ascending; by `seq` ascending with `changed_after`. */
  items: Array<Message>;
  /** Whether there are more in that direction. */
  more: boolean;
}

/** A map of JSON types with string keys, at most 16 levels deep and 8,192 bytes as MessagePack. */
export type Metadata = Record<string, unknown>;

/** A user's membership in a channel. */
export interface Participant {
  /** Id of the channel. */
  channel_id: ChannelId;
  /** Time of joining, in milliseconds since the Unix epoch; set by the store. */
  created_at: number;
  /** Id. */
  id: ParticipantId;
  /** Number of the newest message that the user has read; in lists only. */
  read?: number;
  /** The user's role. */
  role: Role;
  /** Id of the user. */
  user_id: UserId;
}

/** An id: `prt_…`. */
export type ParticipantId = string;

/** Result of `ping`. */
export interface Pong {
  /** The server's clock, in milliseconds since the Unix epoch. */
  at: number;
}

/** Presence of a user. */
export interface Presence {
  /** Time of this state. Of two states, the later one counts. */
  at: number;
  /** End of the last session, in milliseconds since the Unix epoch, if known. */
  last_seen?: number;
  /** Whether the user has a session. */
  online: boolean;
}

/** The data of `presence.changed`. */
export interface PresenceData {
  /** Time of the change. Of two changes, the later one counts. */
  at: number;
  /** End of the user's last session, in milliseconds since the Unix epoch. */
  last_seen?: number;
  /** Whether the user is online. */
  online: boolean;
  /** Id of the user. */
  user_id: UserId;
}

/** Result of `presence.watch`. */
export interface Presences {
  /** Presence of each requested user. */
  presence: Record<string, Presence>;
}

/** The data of `reaction.added` and `reaction.removed`. */
export interface Reaction {
  /** Number of users who give this reaction now. */
  count: number;
  /** The emoji or word. */
  emoji: string;
  /** Id of the message. */
  message_id: MessageId;
  /** Number of the message. */
  number: number;
  /** User who reacted. */
  user_id: UserId;
}

/** The data of `read.marked`. */
export interface ReadData {
  /** Whether the position moved backwards. */
  back?: boolean;
  /** Number of the newest message that the user has read. */
  number: number;
  /** User who read. */
  user_id: UserId;
  /** Grows with every change of this position. Of two events, the one with the greater version is the newer. */
  version?: number;
}

/** A read position. */
export interface ReadResult {
  /** Number of the newest message that the user has read. */
  read: number;
}

/** `token.refresh`. */
export interface RefreshToken {
  /** A new token of the same user. */
  token: string;
}

/** Result of `token.refresh`. */
export interface Refreshed {
  /** Expiry of the new token, in milliseconds since the Unix epoch. */
  expires_at: number;
}

/** Role of a participant. The permission table lists what each role may do. */
export type Role = "owner" | "moderator" | "member" | "observer";

/** `message.send`, `POST /v1/channels/{channel}/messages`. */
export interface SendMessage {
  /** Attachments. */
  attachments?: Array<Attachment>;
  /** Mentioned users of the app. */
  mention_ids?: Array<UserId>;
  message_id?: MessageId;
  /** Free data. */
  metadata?: Metadata;
  reply_to_id?: MessageId;
  /** Text of up to `limits.text_bytes`. */
  text?: string;
}

/** An id: `ses_…`. */
export type SessionId = string;

/** `channel.subscribe`. */
export interface Subscribe {
  /** Up to 200 channels, each with the position to resume from. */
  channels: Record<string, Cursor>;
}

/** Result of `channel.subscribe`. */
export interface Subscribed {
  /** One for each requested channel. */
  channels: Array<EntryResult>;
}

/** `typing`. */
export interface Typing {
  /** Whether the user types; false when the user stopped. */
  typing: boolean;
}

/** The data of `typing`. */
export interface TypingData {
  /** False when the user stopped. A start ends by itself after 6 s. */
  typing: boolean;
  /** User who types. */
  user_id: UserId;
}

/** `read.unmark`. */
export interface UnmarkRead {
  /** The first number that the user has not read, at least 1. */
  number: number;
}

/** `channel.unsubscribe`. */
export interface Unsubscribe {
  /** Channels to unsubscribe from. */
  channel_ids: Array<ChannelId>;
}

/** `channel.update`, `PATCH /v1/channels/{channel}`: a merge patch. */
export interface UpdateChannel {
  /** http or https URL of a picture. */
  banner?: string | null;
  /** Text of one or more lines. */
  description?: string | null;
  /** http or https URL of a picture. */
  icon?: string | null;
  /** Merge patch of the free data. */
  metadata?: Record<string, unknown> | null;
  /** Single line. */
  name?: string | null;
}

/** `participant.update`, `PATCH /v1/channels/{channel}/participants/{user}`. */
export interface UpdateParticipant {
  role?: Role | null;
}

/** `user.update`, `PATCH /v1/users/{user}`: a merge patch. */
export interface UpdateUser {
  /** http or https URL of a picture. */
  avatar?: string | null;
  /** Text of one or more lines. */
  bio?: string | null;
  /** First name. */
  first_name?: string | null;
  /** Last name. */
  last_name?: string | null;
  /** Merge patch of the free data. */
  metadata?: Record<string, unknown> | null;
  /** Single line, like the other names. */
  username?: string | null;
}

/** An id: `upl_…`. */
export type UploadId = string;

/** A user of an app. */
export interface User {
  /** http or https URL of a picture, up to 2,048 characters. */
  avatar?: string;
  /** Text of up to 2,048 characters, line breaks included. */
  bio?: string;
  /** Whether the user is a bot or an agent. */
  bot: boolean;
  /** Time of creation, in milliseconds since the Unix epoch; set by the store. */
  created_at: number;
  /** First name. */
  first_name?: string;
  /** Id. */
  id: UserId;
  /** Last name. */
  last_name?: string;
  /** Free data. */
  metadata: Metadata;
  /** Single line of up to 200 characters, like the other names. */
  username?: string;
}

/** An id: `usr_…`, or one that the app has chosen. */
export type UserId = string;

/** `presence.watch`, `user.get`. */
export interface UserIds {
  /** Ids of the users. */
  user_ids: Array<UserId>;
}

/** Result of `user.get`. */
export interface Users {
  /** The requested users that exist. */
  items: Array<User>;
  /** Whether the reply ends early because it would be too long. The client requests the others again. */
  more?: boolean;
}

/** Which channels `connect` subscribes to. */
export type Watch = "all" | "none";
