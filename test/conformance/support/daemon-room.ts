import { execFileSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { silentLog } from "../../../src/system/log.ts";
import type { FrozenGuest, GuestHardware, LaunchSpec, SaveTarget, Vmms } from "../../../src/vmm/types.ts";
import { createVmms } from "../../../src/vmm/vmms.ts";
import type { VmmsUnderTest } from "../../support/contracts/vmms.ts";
import { NetworkNamespace } from "./netns.ts";
import { pair } from "./pair.ts";
import { Console, tinyGuest } from "./tiny-guest.ts";
import { WorkDir } from "./workdir.ts";

const UID = 200_321;
export const MIB = 1024 * 1024;

export const HARDWARE: GuestHardware = {
  vcpus: 1,
  memory_mib: 64,
  kernel_path: "/kernel",
  initrd_path: "/initrd",
  boot_args: "console=ttyS0 tiny=count",
  disk_path: "/disk",
  seed_path: "/seed",
  console_path: "/console",
  tap_device: "tap0",
  guest_mac: "06:00:ac:10:00:02",
  options: {
    io_engine: "Sync",
    pci: false,
    rate_limits: {
      disk: { bandwidth: { size: 64 * MIB, refill_time_ms: 1000, one_time_burst: MIB } },
      network_rx: { ops: { size: 10_000, refill_time_ms: 1000 } },
      network_tx: { bandwidth: { size: 8 * MIB, refill_time_ms: 100 } },
    },
    huge_pages: "None",
    smt: false,
    track_dirty_pages: true,
  },
  metadata: { latest: { "meta-data": { "instance-id": "door", "public-keys": "k".repeat(100_000) } } },
};

export interface DaemonRoom extends VmmsUnderTest {
  readonly dir: WorkDir;
  console(spec: LaunchSpec): Console;
  /** The jail's root folder, as root sees it. */
  jail(spec: LaunchSpec): string;
}

/**
 * The daemon's vmm room on the pair under test, each VMM in a network namespace of its own.
 * `diskMib`: everything lies on a filesystem of this size.
 */
export async function roomOnPair({ diskMib }: { diskMib?: number } = {}): Promise<DaemonRoom> {
  await using undo = new AsyncDisposableStack();
  const dir = undo.use(new WorkDir());
  if (diskMib !== undefined) {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${diskMib}m`, "tmpfs", dir.path]);
    undo.defer(() => void execFileSync("umount", [dir.path]));
  }
  const restart = async (): Promise<Vmms> => {
    const vmms = createVmms({
      rootDir: dir.path,
      tag: "c0ffee",
      firecrackerPath: pair.firecracker,
      jailerPath: pair.jailer,
      fallback: { firecrackerPath: "/none", jailerPath: "/none", label: "none", reason: "never taken" },
      searchPath: [],
      cgroupParent: `door-${dir.path.slice(-6)}`,
      log: silentLog,
    });
    await vmms.open();
    return vmms;
  };
  const vmms = await restart();
  const namespaces = undo.use(new DisposableStack());
  const specs: LaunchSpec[] = [];
  undo.defer(async () => {
    for (const spec of specs) await vmms.release(spec);
  });
  const file = (name: string, owner: number, bytes: number): string => {
    const path = dir.file(name);
    writeFileSync(path, "", { mode: owner === 0 ? 0o444 : 0o600 });
    truncateSync(path, bytes);
    chownSync(path, owner, owner);
    return path;
  };
  const spec = async (): Promise<LaunchSpec> => {
    const netns = namespaces.use(new NetworkNamespace());
    netns.addTap("tap0", UID);
    const jail_id = vmms.newJailId();
    const kernel = dir.file(`${jail_id}-kernel`);
    copyFileSync(tinyGuest(), kernel);
    const made: LaunchSpec = {
      jail_id,
      uid: UID,
      gid: UID,
      netns_path: netns.path,
      files: [
        { source: kernel, path: "/kernel" },
        { source: file(`${jail_id}-initrd`, 0, 4096), path: "/initrd" },
        { source: file(`${jail_id}-disk`, UID, MIB), path: "/disk" },
        { source: file(`${jail_id}-seed`, 0, 65_536), path: "/seed" },
        { source: file(`${jail_id}-console`, UID, 0), path: "/console" },
        { source: file(`${jail_id}-log`, UID, 0), path: "/vmm.log" },
        { source: file(`${jail_id}-metrics`, UID, 0), path: "/metrics" },
      ],
      log_path: "/vmm.log",
      metrics_path: "/metrics",
      limits: {
        fsize_bytes: 256 * MIB,
        no_file: 4096,
        memory_bytes: 320 * MIB,
        cpus: 1,
        pids: 128,
      },
      pci: false,
    };
    specs.push(made);
    return await Promise.resolve(made);
  };
  let targets = 0;
  const target = async (base?: SaveTarget): Promise<SaveTarget> => {
    targets += 1;
    const state = file(`save-${targets}.state`, UID, 0);
    const memory = file(`save-${targets}.memory`, UID, 0);
    if (base !== undefined) writeFileSync(memory, readFileSync(base.memory));
    return await Promise.resolve({ kind: base === undefined ? "full" : "diff", state, memory });
  };
  /** As the store keeps them: root's, and readable only. */
  const thaw = async (saved: SaveTarget): Promise<{ spec: LaunchSpec; frozen: FrozenGuest }> => {
    for (const path of [saved.state, saved.memory]) {
      chownSync(path, 0, 0);
      chmodSync(path, 0o444);
    }
    const made = await spec();
    const files = [
      ...made.files,
      { source: saved.state, path: "/state" },
      { source: saved.memory, path: "/memory" },
    ];
    const { console_path, tap_device, metadata } = HARDWARE;
    const paths = { state_path: "/state", memory_path: "/memory", console_path };
    return {
      spec: { ...made, files },
      frozen: { ...paths, tap_device, track_dirty_pages: true, metadata },
    };
  };
  const made = undo.move();
  return {
    dir,
    vmms,
    hardware: HARDWARE,
    guestListens: false,
    waitMs: 20_000,
    spec,
    target,
    thaw,
    restart,
    console: ({ jail_id }) => new Console(dir.file(`${jail_id}-console`)),
    die: ({ ref }) => process.kill(ref.process.pid, "SIGKILL"),
    jail: ({ jail_id }) => dir.file("jails", pair.execName, jail_id, "root"),
    [Symbol.asyncDispose]: async () => await made.disposeAsync(),
  };
}
