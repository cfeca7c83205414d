/** For tests of applications. */

export type { FakeChannel } from "./fake_channel.ts";
export { FakeServer } from "./fake_server.ts";
