/** One connection for all tabs of a page. */

export type { TabChannel, TabMessage } from "./messages.ts";
export { sharedConnection, type SharedSettings, type TabLocks } from "./shared.ts";
