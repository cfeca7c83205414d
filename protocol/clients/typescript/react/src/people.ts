/** Hooks of the connection and of users. */

import type { ConnectionState, Presence, User } from "@chaos/client";
import { useCallback, useEffect } from "react";

import { useChat } from "./context.tsx";
import { useObservable, useObservables } from "./observe.ts";

const CONNECTING: ConnectionState = { status: "connecting", why: undefined, retryAt: undefined };

/** The state of the connection: `connecting`, `catching_up`, `online`, `offline` or `closed`. */
export function useConnection(): ConnectionState {
  return useObservable(useChat().connection, CONNECTING);
}

/** The user, once it is known. */
export function useUser(): User | undefined {
  return useObservable(useChat().user, undefined);
}

/** The profiles of users by id, undefined until they are known. */
export function useProfiles(userIds: readonly string[]): Record<string, User | undefined> {
  const chat = useChat();
  return useObservables(
    userIds,
    useCallback((id: string) => chat.profile(id), [chat]),
  );
}

/** Whether users are online, by id, undefined until it is known. At most 100 in a page. */
export function usePresence(userIds: readonly string[]): Record<string, Presence | undefined> {
  const chat = useChat();
  const key = JSON.stringify(userIds);
  useEffect(() => chat.watchPresence(JSON.parse(key) as string[]), [chat, key]);
  return useObservables(
    userIds,
    useCallback((id: string) => chat.presence(id), [chat]),
  );
}
