// @vitest-environment jsdom
import { Chat } from "@chaos/client";
import { FakeServer } from "@chaos/client/testing";
import { act, cleanup, render, renderHook, screen } from "@testing-library/react";
import { memo, type ReactNode, StrictMode } from "react";
import { hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import {
  ChatProvider,
  useChannel,
  useChannels,
  useComposer,
  useConnection,
  useMessages,
  useParticipants,
  usePresence,
  useProfiles,
  useReads,
  useTyping,
  useUnread,
  useUser,
} from "../src/index.ts";

let server: FakeServer;
let chat: Chat;
let bob: Chat;

const settle = () =>
  act(async () => {
    for (let turn = 0; turn < 60; turn += 1) await Promise.resolve();
  });
const chatOf = (user: string) =>
  new Chat({ url: "ws://fake", token: () => user, WebSocket: server.WebSocket });
const wrapper = ({ children }: { children: ReactNode }) => (
  <StrictMode>
    <ChatProvider chat={chat}>{children}</ChatProvider>
  </StrictMode>
);
const hook = async <T,>(use: () => T) => {
  const { result, unmount } = renderHook(use, { wrapper });
  await settle();
  return { result, unmount };
};

beforeEach(() => {
  server = new FakeServer();
  server.addChannel("general", ["alice", "bob"], "General");
  server.addChannel("other", ["alice"]);
  server.send("general", "bob", "hello");
  chat = chatOf("alice");
  bob = chatOf("bob").connect();
});

afterEach(() => {
  cleanup();
  chat.close();
  bob.close();
});

describe("hooks", () => {
  test("useConnection follows the connection", async () => {
    const { result } = renderHook(useConnection, { wrapper });
    expect(result.current.status).toBe("connecting");
    await settle();
    expect(result.current.status).toBe("online");
    server.isDown = true;
    server.cut();
    await settle();
    expect(result.current).toMatchObject({ status: "connecting", why: { kind: "closed" } });
  });

  test("useChannels and useUnread follow the channels", async () => {
    const { result } = await hook(
      () => [useChannels(), useUnread(), useUnread("general")] as const,
    );
    expect(result.current[0].map(({ id }) => id)).toEqual(["general", "other"]);
    expect(result.current.slice(1)).toEqual([1, 1]);
    await act(() => chat.channel("general").markRead());
    expect(result.current.slice(1)).toEqual([0, 0]);
  });

  test("useMessages opens the channel, once for StrictMode and several components", async () => {
    const first = await hook(() => useMessages("general"));
    const second = await hook(() => useMessages("general"));
    expect(server.requests["message.list"]).toBe(1);
    expect(first.result.current.items.map(({ text }) => text)).toEqual(["hello"]);
    server.send("general", "bob", "again");
    await settle();
    expect(second.result.current.items).toHaveLength(2);
    first.unmount();
    server.send("general", "bob", "and again");
    await settle();
    expect(second.result.current.items).toHaveLength(3);
  });

  test("useMessages moves to another channel", async () => {
    server.send("other", "alice", "elsewhere");
    const { result, rerender } = renderHook(({ id }) => useMessages(id), {
      wrapper,
      initialProps: { id: "general" },
    });
    await settle();
    rerender({ id: "other" });
    await settle();
    expect(result.current.items.map(({ text }) => text)).toEqual(["elsewhere"]);
  });

  test("messages that have not changed are the same objects", async () => {
    const renders: string[] = [];
    const Row = memo(({ message }: { message: { text: string } }) => {
      renders.push(message.text);
      return <li>{message.text}</li>;
    });
    const List = () => useMessages("general").items.map((m) => <Row key={m.id} message={m} />);
    render(<List />, { wrapper });
    await settle();
    renders.length = 0;
    server.send("general", "bob", "new");
    await settle();
    expect(new Set(renders)).toEqual(new Set(["new"]));
  });

  test("useChannel tells what is known, before and after", async () => {
    const { result } = renderHook(() => useChannel("general"), { wrapper });
    expect(result.current).toMatchObject({ id: "general", unread: 0 });
    await settle();
    expect(result.current.channel?.name).toBe("General");
    await act(async () => void result.current.actions.send("hi"));
    await settle();
    expect(result.current.lastMessage?.text).toBe("hi");
  });

  test("useTyping, useReads, useParticipants, useProfiles and useUser follow the people", async () => {
    const { result } = await hook(() => ({
      typing: useTyping("general"),
      reads: useReads("general"),
      participants: useParticipants("general"),
      profiles: useProfiles(["bob", "alice"]),
      user: useUser(),
    }));
    bob.channel("general").setTyping(true);
    await settle();
    expect(result.current.typing).toEqual(["bob"]);
    expect(result.current.participants.items).toHaveLength(2);
    expect(result.current.reads).toMatchObject({ bob: 1 });
    expect(result.current.profiles.bob?.username).toBe("bob");
    expect(result.current.user?.id).toBe("alice");
  });

  test("usePresence watches while it is used", async () => {
    const { result, unmount } = await hook(() => usePresence(["bob"]));
    expect(result.current.bob?.online).toBe(true);
    bob.close();
    await settle();
    expect(result.current.bob?.online).toBe(false);
    let watched: unknown;
    server.onRequest = ({ method, params }) => {
      if (method === "presence.watch") watched = params;
      return undefined;
    };
    unmount();
    await settle();
    expect(watched).toEqual({ user_ids: [] });
  });

  test("useComposer keeps a draft for each channel, and sends it", async () => {
    const { result, rerender } = renderHook(({ id }) => useComposer(id), {
      wrapper,
      initialProps: { id: "general" },
    });
    await settle();
    expect(result.current.canSend).toBe(false);
    act(() => result.current.setText("  hi  "));
    await settle();
    expect(bob.channel("general").typing.getSnapshot()).toEqual(["alice"]);
    rerender({ id: "other" });
    expect(result.current.text).toBe("");
    rerender({ id: "general" });
    expect(result.current.text).toBe("  hi  ");
    chat.channel("general").open();
    await settle();
    const message = chat.channel("general").messages.getSnapshot().items[0];
    act(() => result.current.setReplyTo(message));
    act(() => void result.current.send());
    await settle();
    expect(result.current).toMatchObject({ text: "", replyTo: undefined });
    expect(server.channels.get("general")?.messages.at(-1)).toMatchObject({
      text: "hi",
      reply_to_id: message?.id,
    });
  });

  test("a hook without a provider says so", () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    expect(() => renderHook(useChannels)).toThrow("ChatProvider");
    vi.restoreAllMocks();
  });
});

describe("server rendering", () => {
  function Page() {
    const { items } = useMessages("general");
    return (
      <p>
        {useConnection().status} {useChannels().length} {useUnread()} {items.length}
        {JSON.stringify([useTyping("general"), usePresence(["bob"]), useComposer("general").text])}
      </p>
    );
  }

  test("the server renders an empty chat without a connection, and the browser continues it", async () => {
    const page = wrapper({ children: <Page /> });
    const html = renderToString(page);
    expect(html).toContain("connecting");
    expect(server.requests.connect, "only Bob is connected").toBe(1);
    chat.connect();
    chat.channel("general").open();
    await settle();
    const container = document.body.appendChild(document.createElement("div"));
    container.innerHTML = html;
    const errors: unknown[] = [];
    const root = await act(async () =>
      hydrateRoot(container, page, { onRecoverableError: (error) => errors.push(error) }),
    );
    await settle();
    expect(errors).toEqual([]);
    expect(screen.getByText(/online/).textContent).toContain("online");
    await act(async () => root.unmount());
  });
});
