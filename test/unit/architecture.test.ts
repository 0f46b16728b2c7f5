import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";

const FILES = globSync("src/**/*.ts").sort();

/** What each room may import, by folder. Below host, rooms never import each other. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  contract: [],
  system: [],
  model: ["contract", "system"],
  state: ["contract", "model", "system"],
  network: ["contract", "model", "system"],
  storage: ["contract", "model", "system"],
  guest: ["contract", "model", "system"],
  vmm: ["contract", "model", "system"],
  host: ["contract", "model", "system", "state", "network", "storage", "guest", "vmm"],
  api: ["contract", "host", "system"],
  client: ["contract"],
  cli: ["contract", "client"],
  // Part of the composition: it looks at the host with the rooms' own eyes.
  check: ["contract", "system", "settings.ts", "storage", "network", "vmm"],
  standin: [],
};

/** Files of the daemon that hold the composition, not a room. */
const COMPOSITION = /^src\/[a-z-]+\.ts$/;

function roomOf(path: string): string {
  return path.split("/")[1] ?? "";
}

function importsOf(path: string): string[] {
  const text = readFileSync(path, "utf8");
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map(([, target = ""]) =>
    normalize(join(dirname(path), target)),
  );
}

test("data flows one way: every import between rooms follows the design's arrows", () => {
  const wrong: string[] = [];
  let seen = 0;
  for (const path of FILES.filter((file) => !COMPOSITION.test(file))) {
    const allowed = ALLOWED[roomOf(path)];
    assert.ok(allowed !== undefined, `${path} lies in a room that the design does not know`);
    for (const target of importsOf(path)) {
      seen += 1;
      const room = roomOf(target);
      if (room === roomOf(path) || room === "version.ts" || allowed.includes(room)) continue;
      wrong.push(`${path} imports ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
  assert.ok(seen > 100, `only ${seen} imports were seen: the check is blind`);
});

test("host reaches the rooms below only through their doors", () => {
  const wrong = FILES.filter((path) => path.startsWith("src/host/")).flatMap((path) =>
    importsOf(path)
      .filter(
        (target) =>
          ["state", "network", "storage", "guest", "vmm"].includes(roomOf(target)) &&
          !target.endsWith("/types.ts"),
      )
      .map((target) => `${path} imports ${target}`),
  );
  assert.deepEqual(wrong, []);
});

test("no room of the daemon names QEMU or the stand-ins: there is no second driver", () => {
  const rooms = ["host", "vmm", "network", "storage", "guest", "state", "api", "contract", "model", "system"];
  const named = FILES.filter(
    (path) => rooms.includes(roomOf(path)) && /qemu|stand-?in/i.test(readFileSync(path, "utf8")),
  );
  assert.deepEqual(named, []);
  const main = readFileSync("src/main.ts", "utf8");
  assert.match(main, /standin/, "only the composition root knows the stand-ins");
});

test("nothing of the daemon is imported by the stand-ins, nor they by it", () => {
  const wrong = FILES.flatMap((path) =>
    importsOf(path)
      .filter((target) => (roomOf(target) === "standin") !== (roomOf(path) === "standin"))
      .map((target) => `${path} imports ${target}`),
  );
  assert.deepEqual(wrong, []);
});
