import assert from "node:assert/strict";
import { readlinkSync } from "node:fs";
import { type FileHandle, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { mountProblem, parseMountinfo } from "../../../src/storage/filesystem.ts";
import { createStorage } from "../../../src/storage/storage.ts";
import { silentLog } from "../../../src/system/log.ts";
import { temporaryFolder } from "./support.ts";

const line = (point: string, options: string): string =>
  `36 35 98:0 / ${point} ${options} master:1 - ext4 /dev/x rw`;
const folders = ["/srv/ch/images", "/srv/ch/machines"];
const problem = (...mounts: string[]): string | undefined =>
  mountProblem(mounts.join("\n"), "/srv/ch", folders);

test("mount points with spaces are read as they are", () => {
  assert.deepEqual(parseMountinfo(`${line("/a\\040b", "rw,nodev")}\n`), [
    { point: "/a b", options: ["rw", "nodev"] },
  ]);
});

test("the mount that the root lies on must allow devices and executables, and no other mount matters", () => {
  assert.equal(
    problem(line("/", "rw,relatime"), line("/srvother", "rw,noexec"), line("/tmp", "rw,nodev")),
    undefined,
  );
  assert.match(
    problem(line("/", "rw"), line("/srv", "rw,nosuid,nodev")) ?? "",
    /\/srv, which is mounted nodev/,
  );
  assert.match(problem(line("/", "rw,noexec")) ?? "", /mounted noexec/);
  assert.equal(problem(line("/srv", "rw,noexec"), line("/srv/ch", "rw")), undefined, "the innermost counts");
  assert.match(
    problem(line("/srv", "rw"), line("/srv", "rw,noexec")) ?? "",
    /noexec/,
    "the last on a point is on top",
  );
});

test("a mount on one of the folders is refused, since files cannot be hard-linked across it", () => {
  assert.match(
    problem(line("/", "rw"), line("/srv/ch/images", "rw")) ?? "",
    /\/srv\/ch\/images is a mount of its own/,
  );
  assert.equal(problem(line("/", "rw"), line("/srv/ch/elsewhere", "rw")), undefined);
});

test("a root that is relative, too long or in the way of a file is refused with a sentence", async (t) => {
  const folder = await temporaryFolder(t);
  const openAt = (rootDir: string): Promise<void> =>
    createStorage({ rootDir, imageDir: folder, fileUrlDirs: [], cloneMode: "auto", log: silentLog }).open();
  await assert.rejects(openAt("relative"), /not an absolute path/);
  await assert.rejects(openAt(`/tmp/${"x".repeat(100)}`), /too long/);
  await writeFile(join(folder, "images"), "");
  await assert.rejects(openAt(folder));
});

test("the folders that a first start makes outlast a loss of power: their names are synced, and the root's own", async (t) => {
  const folder = await temporaryFolder(t);
  const rootDir = join(folder, "root");
  const synced: string[] = [];
  const handle = await open("/dev/null");
  const handles: { sync(): Promise<void> } = Object.getPrototypeOf(handle);
  await handle.close();
  const sync: () => Promise<void> = Reflect.get(handles, "sync");
  t.mock.method(handles, "sync", function (this: FileHandle) {
    synced.push(readlinkSync(`/proc/self/fd/${this.fd}`));
    return Reflect.apply(sync, this, []);
  });
  await createStorage({
    rootDir,
    imageDir: folder,
    fileUrlDirs: [],
    cloneMode: "auto",
    log: silentLog,
  }).open();
  assert.deepEqual(synced.slice(0, 2), [rootDir, folder]);
});
