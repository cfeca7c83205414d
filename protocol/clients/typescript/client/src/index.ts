/** Client for CHAOS. */

export { ChaosError } from "./policy/errors.ts";
export { type Closed, reconnectAfter, type Reconnect } from "./policy/reconnect.ts";
export * from "./protocol/codec.ts";
export type * from "./protocol/generated.ts";
