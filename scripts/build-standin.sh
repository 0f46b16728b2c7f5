#!/bin/sh
# Bundles the two stand-ins into dist/standin: Node starts a bundle in a third of the time that it needs for the
# TypeScript files. The launchers run the files themselves if a bundle is missing or older.
set -eu
cd "$(dirname "$0")/.."
node_modules/.bin/esbuild src/standin/firecracker-qemu.ts src/standin/jailer-qemu.ts \
  --bundle --platform=node --format=esm --target=node26 --out-extension:.js=.mjs --outdir=dist/standin --log-level=warning
