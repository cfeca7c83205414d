/** Hooks of channels and their messages. */

import type { ChannelInfo, ChatChannel, Messages, Participants } from "@chaos/client";
import { useEffect, useMemo } from "react";

import { useChat } from "./context.tsx";
import { useObservable } from "./observe.ts";

const NO_CHANNELS: ChannelInfo[] = [];
const NO_IDS: string[] = [];
const NO_READS: Readonly<Record<string, number>> = {};
const NO_PARTICIPANTS: Participants = { items: [], isLoaded: false };
const NO_MESSAGES: Messages = {
  items: [],
  isLoaded: false,
  isLoading: false,
  hasOlder: false,
  hasNewer: false,
  error: undefined,
};

/** The user's channels, last active first. */
export function useChannels(): ChannelInfo[] {
  return useObservable(useChat().channels, NO_CHANNELS);
}

/** The state of a channel, and `actions`: the channel itself, for the actions of the user. */
export function useChannel(channelId: string): ChannelInfo & { actions: ChatChannel } {
  const actions = useChat().channel(channelId);
  const initial = useMemo(() => unknownChannel(channelId), [channelId]);
  const info = useObservable(actions.info, initial);
  return useMemo(() => ({ ...info, actions }), [info, actions]);
}

/**
 * The messages of a channel. While a component uses them, the channel is open: subscribed to, with
 * its newest messages loaded.
 */
export function useMessages(
  channelId: string,
): Messages & Pick<ChatChannel, "loadOlder" | "loadNewer" | "loadNewest" | "loadAround"> {
  const channel = useChat().channel(channelId);
  useEffect(() => channel.open(), [channel]);
  const messages = useObservable(channel.messages, NO_MESSAGES);
  return useMemo(
    () => ({
      ...messages,
      loadOlder: () => channel.loadOlder(),
      loadNewer: () => channel.loadNewer(),
      loadNewest: () => channel.loadNewest(),
      loadAround: (number) => channel.loadAround(number),
    }),
    [messages, channel],
  );
}

/** Ids of the others who type in a channel. */
export function useTyping(channelId: string): string[] {
  return useObservable(useChat().channel(channelId).typing, NO_IDS);
}

/** Number of unread messages of a channel, or of all channels. */
export function useUnread(channelId?: string): number {
  const chat = useChat();
  const all = useObservable(chat.unread, 0);
  const channels = useObservable(chat.channels, NO_CHANNELS);
  if (channelId === undefined) return all;
  return channels.find(({ id }) => id === channelId)?.unread ?? 0;
}

/** The participants of a channel: the first page, and further ones by `loadMore`. */
export function useParticipants(channelId: string): Participants & { loadMore(): Promise<void> } {
  const channel = useChat().channel(channelId);
  useEffect(() => {
    if (channel.participants.getSnapshot().items.length === 0)
      ignoreErrors(channel.loadParticipants());
  }, [channel]);
  const participants = useObservable(channel.participants, NO_PARTICIPANTS);
  return useMemo(
    () => ({ ...participants, loadMore: () => channel.loadParticipants() }),
    [participants, channel],
  );
}

/** Numbers up to which the participants have read, by user id, as far as they are known. */
export function useReads(channelId: string): Readonly<Record<string, number>> {
  return useObservable(useChat().channel(channelId).reads, NO_READS);
}

function ignoreErrors(promise: Promise<void>): void {
  promise.catch(() => {});
}

function unknownChannel(id: string): ChannelInfo {
  const unknown = { channel: undefined, role: undefined, lastMessage: undefined };
  return { id, ...unknown, number: 0, read: 0, unread: 0, at: 0 };
}
