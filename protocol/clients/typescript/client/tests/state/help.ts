import { Chat, type ChatSettings } from "../../src/index.ts";
import { FakeServer } from "../../src/testing/index.ts";

/** A server with Alice and Bob in the channel `general`. */
export function serverWithChannel(): FakeServer {
  const server = new FakeServer();
  server.addChannel("general", ["alice", "bob"]);
  return server;
}

export function chatOf(
  server: FakeServer,
  user: string,
  settings: Partial<ChatSettings> = {},
): Chat {
  const { WebSocket } = server;
  return new Chat({ url: "ws://fake", token: () => user, WebSocket, ...settings });
}

/** Waits until nothing is left to do without time passing. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
}

export const texts = (chat: Chat, channelId = "general"): string[] =>
  chat
    .channel(channelId)
    .messages.getSnapshot()
    .items.map(({ text, status }) => (status === "sent" ? text : `${text} (${status})`));
