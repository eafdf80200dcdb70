import { defineConfig } from "vitest/config";

export default defineConfig({
  // JSX without a plugin: esbuild does all that preact needs.
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    outDir: "dist",
    assetsDir: "assets",
    target: "es2022",
    // The core's content security policy knows no inline code; every asset is a file of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: ["index.html", "docs.html"] },
  },
  server: {
    // `npm run dev` shows a core that runs elsewhere.
    proxy: { "/v1": process.env.PENSTOCK_UI_URL ?? "http://127.0.0.1:8090" },
  },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
