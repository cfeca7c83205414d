/** An offline store: last pages, positions and unsent messages survive a reload. */

export { indexedDb, type KeyValueStore } from "./key_value.ts";
export { type OfflineChat, openChat } from "./open.ts";
