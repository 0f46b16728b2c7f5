import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { test } from "node:test";
import { NEEDS_REAL_PAIR, realPair } from "../support/real-run/pair.ts";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { removeGroup, v1Mount } from "./support/cgroups.ts";
import { Jail } from "./support/jail.ts";
import { NetworkNamespace } from "./support/netns.ts";
import { isAlive } from "./support/processes.ts";
import { load } from "./support/snapshot.ts";
import { Console, tinyGuest } from "./support/tiny-guest.ts";
import { waitFor } from "./support/wait.ts";
import { WorkDir } from "./support/workdir.ts";

const MEMORY = 128 << 20;
const FILES = { state: "/state", memory: "/memory" };
const LIMITS = ["--resource-limit", "fsize=1073741824", "--resource-limit", "no-file=1024"];

/** Files that exist before a VMM writes them, as root makes them for it; they outlive its jail. */
class Store implements Disposable {
  readonly #dir = new WorkDir();

  file(name: string): string {
    return this.#dir.file(name);
  }

  /** Puts them into the jail under the names that the VMM is told. */
  link(jail: Jail): void {
    mkdirSync(jail.root, { recursive: true });
    for (const path of Object.values(FILES)) linkSync(this.file(path), jail.inside(path));
  }

  /** Empty files of the jail's uid, linked in. */
  lend(jail: Jail): void {
    for (const path of Object.values(FILES)) {
      writeFileSync(this.file(path), "", { mode: 0o600 });
      chownSync(this.file(path), jail.uid, jail.gid);
    }
    this.link(jail);
  }

  /** Takes the names out of the jail; from now on nobody may write the files. */
  takeBack(jail: Jail): void {
    for (const path of Object.values(FILES)) {
      unlinkSync(jail.inside(path));
      chownSync(this.file(path), 0, 0);
      chmodSync(this.file(path), 0o444);
    }
  }

  [Symbol.dispose](): void {
    this.#dir[Symbol.dispose]();
  }
}

/** A jail with a disk, a console and a tap of its own, started as the daemon starts one. */
async function startJail(
  jail: Jail,
  netns: NetworkNamespace,
  args: readonly string[] = [],
): Promise<Console> {
  netns.addTap("tap0", jail.uid);
  for (const [name, bytes] of [
    ["disk", 1 << 20],
    ["console", 0],
  ] as const) {
    const path = jail.base.file(name);
    writeFileSync(path, "");
    truncateSync(path, bytes);
    jail.stage(path, name);
  }
  await jail.start({ args: ["--netns", netns.path, ...LIMITS, ...args] });
  expectDone(await jail.call("PUT", "/serial", { serial_out_path: "/console" }));
  return new Console(jail.inside("/console"));
}

async function bootJail(jail: Jail, mode: string): Promise<void> {
  const disk = { drive_id: "rootfs", path_on_host: "/disk", is_root_device: true, cache_type: "Writeback" };
  for (const [path, body] of [
    ["/boot-source", { kernel_image_path: jail.stage(tinyGuest()), boot_args: `tiny=${mode}` }],
    ["/drives/rootfs", disk],
    ["/network-interfaces/eth0", { iface_id: "eth0", host_dev_name: "tap0" }],
    ["/entropy", {}],
    ["/actions", { action_type: "InstanceStart" }],
  ] as const) {
    expectDone(await jail.call("PUT", path, body));
  }
}

/** The names of all that lies in the jail, as the host sees it. */
function namesIn(jail: Jail): string {
  return readdirSync(jail.root, { recursive: true, encoding: "utf8" })
    .toSorted((one, other) => (one < other ? -1 : 1))
    .join("\n");
}

const create = (type = "Full") => ({
  snapshot_type: type,
  snapshot_path: FILES.state,
  mem_file_path: FILES.memory,
});

/** Writes a guest that has counted to 3 into the store; its jail is gone. */
async function fillStore(store: Store, mode = "count"): Promise<number> {
  using netns = new NetworkNamespace();
  await using jail = new Jail();
  const console = await startJail(jail, netns);
  await bootJail(jail, mode);
  await console.waitForTick(3);
  expectDone(await jail.call("PATCH", "/vm", { state: "Paused" }));
  const before = namesIn(jail);
  store.lend(jail);
  expectDone(await jail.call("PUT", "/snapshot/create", create()));
  store.takeBack(jail);
  // The save leaves nothing in the jail, whatever it needed.
  assert.deepEqual(namesIn(jail), before);
  const tick = console.lastTick();
  expectDone(await jail.call("PATCH", "/vm", { state: "Resumed" }));
  await console.waitForTick(tick + 2);
  return tick;
}

test("a guest saved into lent files goes on in two jails at once, from root's read-only links", async () => {
  using store = new Store();
  const tick = await fillStore(store);
  assert.equal(statSync(store.file(FILES.memory)).size, MEMORY);
  const written = statSync(store.file(FILES.memory)).mtimeMs;
  await using all = new AsyncDisposableStack();
  const copies: { jail: Jail; console: Console }[] = [];
  for (let copy = 0; copy < 2; copy++) {
    const netns = all.use(new NetworkNamespace());
    const jail = all.use(new Jail());
    store.link(jail);
    const console = await startJail(jail, netns);
    const before = namesIn(jail);
    expectDone(await jail.call("PUT", "/snapshot/load", load(FILES, { resume_vm: false })));
    assert.deepEqual(namesIn(jail), before);
    assert.match(netns.ip("link", "show", "dev", "tap0"), /LOWER_UP/);
    copies.push({ jail, console });
  }
  for (const { jail } of copies) expectDone(await jail.call("PATCH", "/vm", { state: "Resumed" }));
  for (const { jail, console } of copies) {
    await console.waitForTick(tick + 3);
    assert.equal(expectBody(await jail.call("GET", "/"))["id"], jail.id);
  }
  assert.equal(statSync(store.file(FILES.memory)).mtimeMs, written);
});

test("a memory file is mapped by all that loaded it, and copied by none", {
  skip: realPair() === undefined && NEEDS_REAL_PAIR,
}, async () => {
  using store = new Store();
  const tick = await fillStore(store, "dirty");
  const { ino } = statSync(store.file(FILES.memory));
  await using all = new AsyncDisposableStack();
  for (let copy = 0; copy < 2; copy++) {
    const netns = all.use(new NetworkNamespace());
    const jail = all.use(new Jail());
    store.link(jail);
    const console = await startJail(jail, netns);
    expectDone(await jail.call("PUT", "/snapshot/load", load(FILES)));
    await console.waitForTick(tick + 3);
    const smaps = readFileSync(`/proc/${jail.pid}/smaps`, "utf8").split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    const mapping = smaps.find((entry) => entry.split(/\s+/)[4] === String(ino)) ?? "";
    assert.match(mapping, /^\S+ rw-p /);
    const kib = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, "m").exec(mapping)?.[1]);
    assert.equal(kib("Size"), MEMORY / 1024);
    assert.ok(kib("Private_Dirty") < 1024, mapping);
  }
});

test("a loaded jail keeps to its groups and is saved as a diff over its base", {
  skip: v1Mount("memory") === undefined && "no v1 controllers are mounted here",
}, async () => {
  using store = new Store();
  const tick = await fillStore(store, "dirty");
  await using cleanup = new AsyncDisposableStack();
  using netns = new NetworkNamespace();
  await using jail = new Jail();
  const parent = `fcconf-${jail.id}`;
  const group = `${v1Mount("memory")}/${parent}/${jail.id}`;
  cleanup.defer(async () => await removeGroup(group));
  store.link(jail);
  const limit = ["--parent-cgroup", parent, "--cgroup", `memory.limit_in_bytes=${512 << 20}`];
  const console = await startJail(jail, netns, limit);
  expectDone(await jail.call("PUT", "/snapshot/load", load(FILES, { track_dirty_pages: true })));
  await console.waitForTick(tick + 3);
  expectDone(await jail.call("PATCH", "/vm", { state: "Paused" }));
  const merged = {
    snapshot_path: "/merged-state",
    mem_file_path: jail.stage(store.file(FILES.memory), "merged"),
  };
  expectDone(await jail.call("PUT", "/snapshot/create", { ...merged, snapshot_type: "Diff" }));
  const tickAt = (path: string) => readFileSync(path).readUInt32LE(32 << 20);
  assert.ok(tickAt(jail.inside("/merged")) >= tick + 3);
  assert.ok(tickAt(store.file(FILES.memory)) <= tick + 1);
  assert.match(readFileSync(`${group}/cgroup.procs`, "utf8"), new RegExp(`^${jail.pid}$`, "m"));
});

test("a snapshot is written up to the limit of a file's size", async () => {
  await using jail = new Jail();
  await jail.start({ args: ["--resource-limit", `fsize=${MEMORY}`] });
  await jail.boot("dirty");
  expectDone(await jail.call("PATCH", "/vm", { state: "Paused" }));
  expectDone(await jail.call("PUT", "/snapshot/create", create()));
  assert.equal(statSync(jail.inside(FILES.memory)).size, MEMORY);
});

for (const [what, fsize] of [
  ["memory", MEMORY - 4096],
  ["state", 1024],
] as const) {
  test(`a snapshot whose ${what} is beyond that limit ends the VMM with 151 and no answer`, async () => {
    await using jail = new Jail();
    const exit = jail.spawn({ args: ["--resource-limit", `fsize=${fsize}`] });
    await jail.waitForApi();
    const { pid } = jail;
    for (const [path, body] of [
      ["/boot-source", { kernel_image_path: jail.stage(tinyGuest()), boot_args: "tiny=idle" }],
      ["/actions", { action_type: "InstanceStart" }],
    ] as const) {
      expectDone(await jail.call("PUT", path, body));
    }
    expectDone(await jail.call("PATCH", "/vm", { state: "Paused" }));
    await assert.rejects(jail.call("PUT", "/snapshot/create", create()), /socket hang up|ECONNRESET/);
    assert.deepEqual(await jail.ended(exit), { code: 151, signal: null });
    await waitFor("the end of the VMM", () => !isAlive(pid), 5_000);
  });
}

test("files that the uid may not write are a fault that names them, and the guest goes on", async () => {
  await using jail = new Jail();
  await jail.start();
  const console = await jail.boot("count");
  expectDone(await jail.call("PATCH", "/vm", { state: "Paused" }));
  const locked = jail.stage("/etc/hostname", "locked");
  chownSync(jail.inside(locked), 0, 0);
  chmodSync(jail.inside(locked), 0o444);
  const refused = async (body: object) => expectFault(await jail.call("PUT", "/snapshot/create", body));
  const denied = /Permission denied \(os error 13\)/;
  const memory = await refused({ snapshot_path: "/state", mem_file_path: locked });
  assert.match(memory, /on the memory backing file/);
  assert.match(memory, denied);
  const state = await refused({ snapshot_path: locked, mem_file_path: "/memory" });
  assert.match(state, /on the snapshot backing file/);
  assert.match(state, denied);
  expectDone(await jail.call("PUT", "/snapshot/create", create()));
  expectDone(await jail.call("PATCH", "/vm", { state: "Resumed" }));
  await console.waitForTick(console.lastTick() + 2);
});

test("a failed load ends a jail", async () => {
  await using jail = new Jail();
  await jail.start();
  const { pid } = jail;
  expectFault(await jail.call("PUT", "/snapshot/load", load(FILES)));
  await waitFor("the end of the VMM", () => !isAlive(pid), 5_000);
});
