/** React hooks for CHAOS. */

export {
  useChannel,
  useChannels,
  useMessages,
  useParticipants,
  useReads,
  useTyping,
  useUnread,
} from "./channels.ts";
export { type Composer, useComposer } from "./composer.ts";
export { ChatProvider, type ChatProviderProps, useChat } from "./context.tsx";
export { useObservable } from "./observe.ts";
export { useConnection, usePresence, useProfiles, useUser } from "./people.ts";
