/** Client for CHAOS. */

export { Connection, type ConnectionSettings, SignedOut } from "./connection/connection.ts";
export type { Link } from "./connection/link.ts";
export type * from "./machine/io.ts";
export { ChaosError } from "./policy/errors.ts";
export type { Closed } from "./policy/reconnect.ts";
export type * from "./protocol/generated.ts";
