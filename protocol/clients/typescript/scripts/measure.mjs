// Measures connecting and the memory of 10,000 messages against the server in memory: npm run measure
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { Chat } from "../client/dist/index.js";
import { FakeServer } from "../client/dist/testing/index.js";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc");
const heap = () => {
  collect();
  return process.memoryUsage().heapUsed / 1e6;
};
const until = async (value, condition) => {
  await new Promise((resolve) => {
    const end = value.subscribe((state) => condition(state) && resolve());
    setTimeout(() => end?.());
  });
};

const server = new FakeServer();
server.addChannel("general", ["alice", "bob"]);
for (let number = 1; number <= 10_000; number += 1) {
  server.send(
    "general",
    "bob",
    `This is message number ${number}, as long as a sentence usually is.`,
  );
}
const before = heap();
const start = performance.now();
const chat = new Chat({
  url: "ws://fake",
  token: () => "alice",
  WebSocket: server.WebSocket,
}).connect();
const general = chat.channel("general");
general.open();
await until(general.messages, ({ isLoaded }) => isLoaded);
console.log(`connected, first page shown: ${(performance.now() - start).toFixed(0)} ms`);
while (general.messages.getSnapshot().hasOlder) await general.loadOlder();
const { items } = general.messages.getSnapshot();
console.log(`${items.length} messages: ${(heap() - before).toFixed(1)} MB`);

const samples = [];
for (let number = 0; number < 200; number += 1) {
  const sent = performance.now();
  const id = general.send("x");
  general.messages.getSnapshot();
  samples.push(performance.now() - sent);
  await until(general.messages, (state) =>
    state.items.some((m) => m.id === id && m.status === "sent"),
  );
}
samples.sort((a, b) => a - b);
console.log(
  `a message is shown after ${samples[100].toFixed(2)} ms (median), ${samples[198].toFixed(2)} ms (p99)`,
);
chat.close();
