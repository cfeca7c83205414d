/** The client of a page. */

import type { Chat } from "@chaos/client";
import { createContext, type ReactNode, useContext, useEffect } from "react";

const ChatContext = createContext<Chat | undefined>(undefined);

export interface ChatProviderProps {
  chat: Chat;
  children?: ReactNode;
}

/**
 * Gives `chat` to the hooks below it, and connects it in the browser. It does not close it: the page
 * that made it calls `chat.close()` when its user signs out.
 */
export function ChatProvider({ chat, children }: ChatProviderProps): ReactNode {
  useEffect(() => void chat.connect(), [chat]);
  return <ChatContext.Provider value={chat}>{children}</ChatContext.Provider>;
}

/** The client of the nearest `ChatProvider`. */
export function useChat(): Chat {
  const chat = useContext(ChatContext);
  if (!chat) throw new Error("a ChatProvider is missing above this component");
  return chat;
}
