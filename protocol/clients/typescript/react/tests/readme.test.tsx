// @vitest-environment jsdom
/** The code blocks of the README. */

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { join } from "node:path";

import { Chat, type ChatChannel } from "@chaos/client";
import { FakeServer } from "@chaos/client/testing";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/react";
import { IDBFactory } from "fake-indexeddb";
import type { ReactNode } from "react";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";

const workspace = join(import.meta.dirname, "../../");
const folder = `${workspace}react/tests/.readme/`;

const readme = readFileSync(`${workspace}README.md`, "utf8");
const blocks = [...readme.matchAll(/^```(\w+) test=(\w+)\n(.*?)^```$/gms)].map(
  ([, language = "", name = "", code = ""]) => ({ file: `${name}.${language}`, name, code }),
);

const pathOf = (name: string) => folder + blocks.find((block) => block.name === name)?.file;
const load = <T,>(name: string): Promise<T> => {
  return import(/* @vite-ignore */ pathOf(name)) as Promise<T>;
};

let server: FakeServer;
const chats: Chat[] = [];
const chatOf = (user: string) => {
  const chat = new Chat({ url: "ws://fake", token: () => user, WebSocket: server.WebSocket });
  chats.push(chat);
  return chat;
};

beforeAll(() => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const { file, code } of blocks) writeFileSync(folder + file, code);
});

beforeEach(() => {
  server = new FakeServer();
  server.addChannel("general", ["alice", "bob"], "General");
  vi.stubGlobal("WebSocket", server.WebSocket);
  vi.stubGlobal("indexedDB", new IDBFactory());
});

afterEach(() => {
  cleanup();
  chats.splice(0).forEach((chat) => chat.close());
  vi.unstubAllGlobals();
});

test("every block with code is tested", () => {
  const untested = [...readme.matchAll(/^```(js|ts|tsx)$/gm)];
  expect(untested).toEqual([]);
  const names = blocks.map(({ name }) => name);
  const source = readFileSync(join(import.meta.dirname, "readme.test.tsx"), "utf8");
  for (const name of names) expect(source, `a test of ${name}`).toContain(`"${name}"`);
});

test("the blocks have correct types", { timeout: 60_000 }, () => {
  const paths = {
    "@chaos/client": ["../../../client/src/index.ts"],
    "@chaos/client/offline": ["../../../client/src/offline/index.ts"],
    "@chaos/client/tabs": ["../../../client/src/tabs/index.ts"],
    "@chaos/client/testing": ["../../../client/src/testing/index.ts"],
    "@chaos/react": ["../../src/index.ts"],
  };
  const config = {
    extends: "../../../tsconfig.base.json",
    compilerOptions: { noEmit: true, paths },
    include: ["*.ts", "*.tsx", "../../../client/src/protocol/notepack.d.ts"],
  };
  writeFileSync(`${folder}tsconfig.json`, JSON.stringify(config));
  try {
    execFileSync("npx", ["tsc", "-p", folder], { cwd: workspace, encoding: "utf8" });
  } catch (error) {
    expect.fail((error as { stdout: string }).stdout);
  }
});

test("the page shows messages and sends what is written", async () => {
  document.body.innerHTML = `<pre id="messages"></pre><input id="text">`;
  vi.stubGlobal(
    "fetch",
    async (path: string) => new Response(path === "/chat-token" ? "alice" : ""),
  );
  await load("page");
  server.send("general", "bob", "hello");
  const input = document.querySelector("input") as HTMLInputElement;
  await waitFor(() => expect(document.querySelector("#messages")?.textContent).toBe("hello"));
  fireEvent.change(input, { target: { value: "hi Bob" } });
  await waitFor(() => expect(server.channels.get("general")?.messages).toHaveLength(2));
  expect(document.querySelector("#messages")?.textContent).toBe("hello\nhi Bob");
  expect(input.value).toBe("");
  server.cut(4004);
});

test("the React example is a chat", async () => {
  const { App } = await load<{ App: (props: { chat: Chat }) => ReactNode }>("react");
  server.addChannel("random", ["alice"], "Random");
  server.send("general", "bob", "hello");
  const bob = chatOf("bob").connect();
  render(<App chat={chatOf("alice")} />);
  await screen.findByText("hello");
  fireEvent.change(screen.getByLabelText("Message"), { target: { value: "hi" } });
  fireEvent.click(screen.getByText("Send"));
  await waitFor(() => expect(server.channels.get("general")?.messages.at(-1)?.text).toBe("hi"));
  bob.channel("general").setTyping(true);
  await screen.findByText("bob is typing…");
  fireEvent.click(screen.getByText(/Random/));
  await waitFor(() => expect(screen.queryByText("hello")).toBeNull());
});

test("history is read around a message and up to the newest", async () => {
  const recipe = await load<{
    showReply(channel: ChatChannel, number: number): Promise<void>;
    scrolledToTop(channel: ChatChannel): Promise<void>;
  }>("history");
  for (let number = 1; number <= 150; number += 1) server.send("general", "bob", `${number}`);
  const channel = chatOf("alice").connect().channel("general");
  channel.open();
  await waitFor(() => expect(channel.messages.getSnapshot().isLoaded).toBe(true));
  await recipe.showReply(channel, 60);
  await recipe.scrolledToTop(channel);
  expect(channel.messages.getSnapshot()).toMatchObject({ hasNewer: false });
  expect(channel.messages.getSnapshot().items).toHaveLength(150);
});

test("messages of one's own kind keep their metadata", async () => {
  const recipe = await load<{
    sendPoll(channel: ChatChannel, question: string, options: string[]): string;
    pollOf(message: object): object | undefined;
  }>("metadata");
  const channel = chatOf("alice").connect().channel("general");
  channel.open();
  recipe.sendPoll(channel, "Lunch?", ["yes", "no"]);
  await waitFor(() => expect(server.channels.get("general")?.messages).toHaveLength(1));
  const [message] = channel.messages.getSnapshot().items;
  expect(recipe.pollOf(message ?? {})).toEqual({ kind: "poll", options: ["yes", "no"] });
  expect(recipe.pollOf({ metadata: {} })).toBeUndefined();
});

test("an action that is refused says why", async () => {
  const recipe = await load<{ addReaction(channel: ChatChannel, id: string): Promise<string> }>(
    "errors",
  );
  const channel = chatOf("alice").connect().channel("general");
  const { id } = server.send("general", "bob", "hello");
  expect(await recipe.addReaction(channel, id)).toBe("");
  server.onRequest = () => ({ code: "forbidden", message: "no" });
  expect(await recipe.addReaction(channel, id)).toBe("You may not react here.");
});

test("the offline recipe keeps a user's chat and erases it", async () => {
  const recipe = await load<{
    start(
      user: string,
      token: () => Promise<string>,
    ): Promise<{
      chat: Chat;
      flush(): Promise<void>;
      signOut(): Promise<void>;
    }>;
  }>("offline");
  const offline = await recipe.start("alice", async () => "alice");
  await waitFor(() => expect(offline.chat.channels.getSnapshot()).toHaveLength(1));
  await offline.flush();
  expect((await indexedDB.databases()).map(({ name }) => name)).toEqual(["chaos-alice"]);
  await offline.signOut();
  expect(await indexedDB.databases()).toEqual([]);
});

test("the tabs recipe opens a chat", async () => {
  const recipe = await load<{ openTab(user: string, token: () => Promise<string>): Chat }>("tabs");
  const chat = recipe.openTab("alice", async () => "alice");
  chats.push(chat);
  await waitFor(() => expect(chat.channels.getSnapshot()).toHaveLength(1));
});

test("the testing recipe sees the message", async () => {
  const { example } = await load<{ example(): Promise<string[]> }>("testing");
  expect(await example()).toEqual(["hello"]);
});

test("the token endpoint mints tokens for its users", async () => {
  const asked: string[] = [];
  const api = await listen((url, key) => asked.push(`${url} ${key}`));
  const port = String((await freePort()).port);
  const env = { ...process.env, CHAOS_URL: api.url, CHAOS_KEY: "sk_live_x", PORT: port };
  const endpoint: ChildProcess = spawn(process.execPath, ["--input-type=module"], {
    env,
    stdio: ["pipe", "inherit", "inherit"],
  });
  endpoint.stdin?.end(readFileSync(pathOf("token")));
  try {
    const ask = (headers: HeadersInit) => fetch(`http://127.0.0.1:${port}/`, { headers });
    await waitFor(async () => expect((await ask({})).status).toBe(401), { timeout: 10_000 });
    expect(await (await ask({ "x-user": "al ice" })).text()).toBe("minted");
    expect(asked).toEqual(["/v1/users/al%20ice/tokens Bearer sk_live_x"]);
  } finally {
    endpoint.kill();
    api.server.close();
  }
});

function listen(
  asked: (url: string, key: string) => void,
): Promise<{ server: Server; url: string }> {
  const api = createServer((request, response) => {
    asked(request.url ?? "", request.headers.authorization ?? "");
    response.end(JSON.stringify({ token: "minted" }));
  });
  return new Promise((resolve) =>
    api.listen(0, "127.0.0.1", () => {
      const { port } = api.address() as { port: number };
      resolve({ server: api, url: `http://127.0.0.1:${port}` });
    }),
  );
}

async function freePort(): Promise<{ port: number }> {
  const { server: probe } = await listen(() => {});
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return { port };
}
