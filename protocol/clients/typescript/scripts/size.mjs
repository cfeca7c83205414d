// Fails if what a page loads is larger than promised: minified and gzipped, the codec included.
import { gzipSync } from "node:zlib";

import { buildSync } from "esbuild";

const bounds = {
  "@chaos/client": ["client/dist/index.js", 15 * 1024],
  "@chaos/react": ["react/dist/index.js", 2 * 1024],
};

let failed = false;
for (const [name, [path, bound]] of Object.entries(bounds)) {
  const { outputFiles } = buildSync({
    entryPoints: [path],
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    target: "es2022",
    external: ["react", "react/jsx-runtime", "@chaos/client"],
    write: false,
  });
  const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
  console.log(`${name}: ${size} bytes gzipped, at most ${bound}`);
  failed ||= size > bound;
}
process.exitCode = failed ? 1 : 0;
