import { fileURLToPath } from "node:url";

import { defineConfig } from "vitest/config";

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  resolve: {
    alias: {
      "@chaos/client/offline": source("client/src/offline/index.ts"),
      "@chaos/client/tabs": source("client/src/tabs/index.ts"),
      "@chaos/client/testing": source("client/src/testing/index.ts"),
      "@chaos/client": source("client/src/index.ts"),
      "@chaos/react": source("react/src/index.ts"),
    },
  },
  test: { include: ["*/tests/**/*.test.{ts,tsx}"] },
});
