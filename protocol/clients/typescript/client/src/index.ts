/** Client for CHAOS. */

export { Chat, type ChatSettings } from "./chat.ts";
export { type ConnectionSettings, SignedOut, type WebSocketLike } from "./connection/connection.ts";
export type { Link } from "./connection/link.ts";
export type { CallMode, Position, Resume, Status, Why } from "./machine/io.ts";
export { ChaosError } from "./policy/errors.ts";
export type { Closed } from "./policy/reconnect.ts";
export type { EventFrame } from "./protocol/codec.ts";
export type * from "./protocol/generated.ts";
export type { Observable } from "./state/cell.ts";
export type { ChatChannel } from "./state/channel.ts";
export type * from "./state/types.ts";
