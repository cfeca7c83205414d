// Compares MessagePack codecs in size and speed: npm run codecs (installs them into a folder of its own).
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";

import { buildSync } from "esbuild";

const folder = mkdtempSync(join(tmpdir(), "codecs-"));
const packages = ["@msgpack/msgpack@3.1.3", "msgpackr@2.1.4", "notepack.io@3.0.1"];
writeFileSync(join(folder, "package.json"), "{}");
execFileSync("npm", ["install", "--ignore-scripts", "--no-audit", ...packages], { cwd: folder });

const codecs = {
  "@msgpack/msgpack": `import { Decoder, Encoder } from "@msgpack/msgpack";
    const encoder = new Encoder(), decoder = new Decoder();
    export const encode = (value) => encoder.encode(value), decode = (bytes) => decoder.decode(bytes);`,
  msgpackr: `import { Packr } from "msgpackr";
    const packr = new Packr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" });
    export const encode = (value) => packr.pack(value), decode = (bytes) => packr.unpack(bytes);`,
  "notepack.io": `import decode from "notepack.io/browser/decode.js";
    import encode from "notepack.io/browser/encode.js";
    export { decode, encode };`,
};
const vectors = ["replies", "events"].flatMap((name) =>
  JSON.parse(readFileSync(new URL(`../../../vectors/${name}.json`, import.meta.url), "utf8")),
);
const frames = vectors.map((vector) => Uint8Array.from(Buffer.from(vector.msgpack, "hex")));
const bytes = frames.reduce((sum, frame) => sum + frame.length, 0);

for (const [name, source] of Object.entries(codecs)) {
  const { outputFiles } = buildSync({
    stdin: { contents: source, resolveDir: folder },
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    write: false,
  });
  const path = join(folder, `${name.replace(/\W/g, "")}.mjs`);
  writeFileSync(path, outputFiles[0].contents);
  const { decode } = await import(pathToFileURL(path).href);
  const rounds = (count) => {
    for (let round = 0; round < count; round += 1) frames.forEach((frame) => decode(frame));
  };
  rounds(2000);
  const start = performance.now();
  rounds(10_000);
  const seconds = (performance.now() - start) / 1000;
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  const speed = (bytes * 10_000) / 1e6 / seconds;
  const evaluates = Buffer.from(outputFiles[0].contents).includes("new Function");
  console.log(
    `${name}: ${size} bytes gzipped, decodes ${speed.toFixed(0)} MB/s, evaluates code: ${evaluates}`,
  );
}
