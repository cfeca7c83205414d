/** The tabs of a browser in memory: locks and channels between them. */

import { Chat } from "../../src/index.ts";
import { sharedConnection, type TabChannel, type TabMessage } from "../../src/tabs/index.ts";
import type { FakeServer } from "../../src/testing/index.ts";

export class Browser {
  readonly #server: FakeServer;
  #channels = new Set<Tab>();
  #waiting: Array<{ tab: Tab; hold: () => Promise<void> }> = [];
  #holder: Tab | undefined;

  constructor(server: FakeServer) {
    this.#server = server;
  }

  open(user: string): Tab {
    return new Tab(this, this.#server, user);
  }

  register(tab: Tab): void {
    this.#channels.add(tab);
  }

  post(from: Tab, message: TabMessage): void {
    const copy = structuredClone(message);
    for (const tab of this.#channels) {
      if (tab !== from) queueMicrotask(() => tab.receive(structuredClone(copy)));
    }
  }

  lock(tab: Tab, hold: () => Promise<void>): void {
    this.#waiting.push({ tab, hold });
    this.#grant();
  }

  gone(tab: Tab): void {
    this.#channels.delete(tab);
    this.#waiting = this.#waiting.filter((waiting) => waiting.tab !== tab);
    if (this.#holder === tab) this.#holder = undefined;
    this.#grant();
  }

  #grant(): void {
    if (this.#holder) return;
    const next = this.#waiting.shift();
    if (!next) return;
    this.#holder = next.tab;
    queueMicrotask(async () => {
      await next.hold();
      if (this.#holder === next.tab) this.#holder = undefined;
      this.#grant();
    });
  }
}

export class Tab {
  readonly #browser: Browser;
  readonly chat: Chat;
  #isDead = false;
  #channel: TabChannel | undefined;
  #sockets: Array<{ close(): void }> = [];
  sessions = 0;

  constructor(browser: Browser, server: FakeServer, user: string) {
    this.#browser = browser;
    const tab = this;
    const WebSocket = class extends server.WebSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        tab.#sockets.push(this);
        tab.sessions += 1;
      }
    };
    const settings = { url: "ws://fake", token: () => user, WebSocket, name: user };
    const link = sharedConnection({
      ...settings,
      locks: { request: async (_, hold) => browser.lock(this, hold) },
      channel: () => this.#open(),
    });
    this.chat = new Chat({ ...settings, link }).connect();
  }

  #open(): TabChannel {
    const channel: TabChannel = {
      onmessage: null,
      postMessage: (message) => {
        if (!this.#isDead) this.#browser.post(this, message);
      },
      close: () => this.#browser.gone(this),
    };
    this.#channel = channel;
    this.#browser.register(this);
    return channel;
  }

  receive(message: TabMessage): void {
    if (!this.#isDead) this.#channel?.onmessage?.({ data: message });
  }

  /** The tab is closed without a word, as by a crash. */
  kill(): void {
    this.#isDead = true;
    for (const socket of this.#sockets) socket.close();
    this.#browser.gone(this);
  }
}
