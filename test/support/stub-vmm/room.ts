import { chown, copyFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { silentLog } from "../../../src/system/log.ts";
import { run } from "../../../src/system/run.ts";
import type { FrozenGuest, GuestHardware, LaunchSpec, SaveTarget, Vmms } from "../../../src/vmm/types.ts";
import { createVmms } from "../../../src/vmm/vmms.ts";
import { type StubPair, stubPair } from "./build.ts";

export const VMM_UID = 200_777;

export const HARDWARE: GuestHardware = {
  vcpus: 1,
  memory_mib: 128,
  kernel_path: "/kernel",
  initrd_path: "/initrd",
  boot_args: "console=ttyS0",
  disk_path: "/disk",
  seed_path: "/seed",
  console_path: "/console",
  tap_device: "tap0",
  guest_mac: "06:00:ac:10:00:02",
  options: {
    io_engine: "Sync",
    pci: false,
    huge_pages: "None",
    smt: false,
    track_dirty_pages: true,
  },
  metadata: { latest: { "meta-data": { "instance-id": "stub" } } },
};

/** How a guest is woken that was saved into `target`, in the jail of `spec`. */
export function thawing(spec: LaunchSpec, target: SaveTarget): { spec: LaunchSpec; frozen: FrozenGuest } {
  return {
    spec: {
      ...spec,
      files: [
        ...spec.files,
        { source: target.state, path: "/state" },
        { source: target.memory, path: "/memory" },
      ],
    },
    frozen: {
      state_path: "/state",
      memory_path: "/memory",
      console_path: HARDWARE.console_path,
      tap_device: HARDWARE.tap_device,
      track_dirty_pages: true,
      metadata: HARDWARE.metadata,
    },
  };
}

/** A vmm room on the stub pair, in a root folder and a network namespace of its own. */
export interface StubRoom extends AsyncDisposable {
  readonly rootDir: string;
  readonly netnsPath: string;
  readonly pair: StubPair;
  readonly vmms: Vmms;
  /** A room of a daemon that starts again on the same root. */
  restart(): Promise<Vmms>;
  /** A new launch; `rules` tell the VMM to misbehave, see stub-firecracker.c. */
  spec(rules?: string): Promise<LaunchSpec>;
  /** Two files for a save: empty, or the memory a copy of a base's. */
  target(base?: SaveTarget): Promise<SaveTarget>;
  /** The VMM's log of a launch: one line a request. */
  logOf(spec: LaunchSpec): Promise<string>;
  /** What is left on the host: jails, trash, cgroups. */
  leftovers(): Promise<string[]>;
}

export async function stubRoom(options: { launchTimeoutMs?: number } = {}): Promise<StubRoom> {
  const undo = new AsyncDisposableStack();
  const rootDir = await mkdtemp(join(tmpdir(), "vmm-"));
  undo.defer(async () => await rm(rootDir, { recursive: true, force: true }));
  const tag = `t${basename(rootDir).slice(-5)}`;
  const netns = `vmm-test-${basename(rootDir).slice(4)}`;
  await run(["ip", "netns", "add", netns]);
  undo.defer(async () => void (await run(["ip", "netns", "delete", netns])));
  const pair = await stubPair(rootDir);
  const restart = async (): Promise<Vmms> => {
    const vmms = createVmms({
      rootDir,
      tag,
      firecrackerPath: pair.firecrackerPath,
      jailerPath: pair.jailerPath,
      fallback: { firecrackerPath: "/none", jailerPath: "/none", label: "none", reason: "never taken" },
      searchPath: [],
      log: silentLog,
      ...options,
    });
    await vmms.open();
    return vmms;
  };
  const vmms = await restart();
  undo.defer(async () => {
    for (const jail_id of await vmms.listJails())
      await vmms.release({ jail_id, uid: VMM_UID, gid: VMM_UID, netns_path: `/run/netns/${netns}` });
  });

  const spec = async (rules = ""): Promise<LaunchSpec> => {
    const jail_id = vmms.newJailId();
    const make = async (
      name: string,
      owner: number,
      content: string,
    ): Promise<{ source: string; path: string }> => {
      const source = join(rootDir, `${jail_id}-${name}`);
      await writeFile(source, content, { mode: owner === 0 ? 0o444 : 0o600 });
      await chown(source, owner, owner);
      return { source, path: `/${name}` };
    };
    return {
      jail_id,
      uid: VMM_UID,
      gid: VMM_UID,
      netns_path: `/run/netns/${netns}`,
      files: [
        await make("kernel", 0, "kernel"),
        await make("stub.conf", 0, rules),
        await make("console", VMM_UID, ""),
        await make("vmm.log", VMM_UID, ""),
        await make("metrics", VMM_UID, ""),
      ],
      log_path: "/vmm.log",
      metrics_path: "/metrics",
      limits: {
        fsize_bytes: 256 * 1024 * 1024,
        no_file: 64,
        memory_bytes: 64 * 1024 * 1024,
        cpus: 1.5,
        pids: 16,
      },
      pci: false,
    };
  };

  let targets = 0;
  const target = async (base?: SaveTarget): Promise<SaveTarget> => {
    targets += 1;
    const state = join(rootDir, `save-${targets}.state`);
    const memory = join(rootDir, `save-${targets}.memory`);
    await writeFile(state, "");
    if (base === undefined) await writeFile(memory, "");
    else await copyFile(base.memory, memory);
    for (const path of [state, memory]) await chown(path, VMM_UID, VMM_UID);
    return { kind: base === undefined ? "full" : "diff", state, memory };
  };

  return {
    rootDir,
    netnsPath: `/run/netns/${netns}`,
    pair,
    vmms,
    restart,
    spec,
    target,
    logOf: async (launched) => await readFile(join(rootDir, `${launched.jail_id}-vmm.log`), "utf8"),
    leftovers: async () => [...(await filesIn(rootDir)), ...(await cgroupsOf(tag))],
    [Symbol.asyncDispose]: async () => await undo.disposeAsync(),
  };
}

async function filesIn(rootDir: string): Promise<string[]> {
  const folders = await readdir(join(rootDir, "jails"));
  const jails = await Promise.all(folders.map(async (name) => await readdir(join(rootDir, "jails", name))));
  return [...jails.flat(), ...(await readdir(join(rootDir, "trash")))];
}

/** Groups of this room in any mounted hierarchy. */
async function cgroupsOf(tag: string): Promise<string[]> {
  const mounts = (await readFile("/proc/mounts", "utf8"))
    .split("\n")
    .map((line) => line.split(" "))
    .filter(([, , type]) => type === "cgroup" || type === "cgroup2")
    .map(([, directory = ""]) => join(directory, `computer-host-${tag}`));
  const there = await Promise.all(mounts.map(async (path) => await stat(path).catch(() => undefined)));
  return mounts.filter((_, index) => there[index] !== undefined);
}
