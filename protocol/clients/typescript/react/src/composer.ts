/** The hook of a form that writes messages. */

import type { ChatMessage, SendMessage } from "@chaos/client";
import { useEffect, useState } from "react";

import { useChat } from "./context.tsx";

export interface Composer {
  /** The draft. Each channel has its own. */
  text: string;
  /** Sets the draft, and sends to the others that the user is typing. */
  setText(text: string): void;
  /** The message that is replied to. */
  replyTo: ChatMessage | undefined;
  setReplyTo(message: ChatMessage | undefined): void;
  /** Whether there is something to send. */
  canSend: boolean;
  /** Sends the draft, with other fields if there are any, and clears it. Returns the message's id. */
  send(fields?: Omit<SendMessage, "message_id" | "text">): string | undefined;
}

interface Draft {
  text: string;
  replyTo: ChatMessage | undefined;
}

const EMPTY: Draft = { text: "", replyTo: undefined };

export function useComposer(channelId: string): Composer {
  const channel = useChat().channel(channelId);
  const [drafts, setDrafts] = useState<Record<string, Draft>>({});
  const draft = drafts[channelId] ?? EMPTY;
  const setDraft = (change: Partial<Draft>) =>
    setDrafts((all) => ({ ...all, [channelId]: { ...EMPTY, ...all[channelId], ...change } }));
  useEffect(() => () => channel.setTyping(false), [channel]);
  const text = draft.text.trim();
  return {
    ...draft,
    setText(changed) {
      setDraft({ text: changed });
      channel.setTyping(changed !== "");
    },
    setReplyTo: (replyTo) => setDraft({ replyTo }),
    canSend: text !== "",
    send(fields = {}) {
      if (text === "" && !fields.attachments?.length) return undefined;
      const reply = draft.replyTo ? { reply_to_id: draft.replyTo.id } : {};
      setDraft(EMPTY);
      return channel.send({ text, ...reply, ...fields });
    },
  };
}
