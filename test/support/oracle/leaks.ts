import { chmod, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../../src/system/run.ts";
import type { Difference } from "./item.ts";
import type { Stage } from "./stage.ts";

/** A uid that no user of the machine has. */
export const UID = 200_001;

/** A leak that is planted for real: what it is, and the difference that must be found beside it. */
export interface Leak {
  readonly name: string;
  readonly plant: (stage: Stage) => Promise<unknown>;
  readonly expect: Pick<Difference, "kind" | "resource">;
  /** False for what only a comparison with before can know: nothing says whose it is. */
  readonly inState: boolean;
}

const sysctl = (value: string) => (stage: Stage) =>
  stage.exec(["sysctl", "-qw", `net.ipv4.conf.all.log_martians=${value}`]);

export const LEAKS: readonly Leak[] = [
  {
    name: "a namespace with a name of ours that no slot has",
    plant: (stage) => stage.namespace(`ch-${stage.scope.tag}-left`),
    expect: { kind: "leaked", resource: "namespace" },
    inState: true,
  },
  {
    name: "a slot's end on the host without its namespace",
    plant: async (stage) => {
      const name = `ch${stage.scope.tag}v9`;
      await stage.ip("link", "add", name, "type", "veth", "peer", "name", "other");
      stage.defer(() => stage.ip("link", "del", name));
    },
    expect: { kind: "leaked", resource: "link" },
    inState: true,
  },
  {
    name: "a tap on the host",
    plant: async (stage) => {
      await stage.ip("tuntap", "add", "tap0", "mode", "tap", "user", String(UID));
      stage.defer(() => stage.ip("link", "del", "tap0"));
    },
    expect: { kind: "leaked", resource: "link" },
    inState: false,
  },
  {
    name: "a second tap in the slot of a machine",
    plant: async (stage) => {
      await stage.exec(["ip", "tuntap", "add", "tap1", "mode", "tap"], `ch-${stage.scope.tag}-1`);
      stage.defer(() => stage.exec(["ip", "link", "del", "tap1"], `ch-${stage.scope.tag}-1`));
    },
    expect: { kind: "leaked", resource: "link" },
    inState: false,
  },
  {
    name: "an address",
    plant: async (stage) => {
      await stage.ip("addr", "add", "10.200.9.1/32", "dev", "lo");
      stage.defer(() => stage.ip("addr", "del", "10.200.9.1/32", "dev", "lo"));
    },
    expect: { kind: "leaked", resource: "address" },
    inState: false,
  },
  {
    name: "a route",
    plant: async (stage) => {
      await stage.ip("route", "add", "blackhole", "10.200.77.0/24");
      stage.defer(() => stage.ip("route", "del", "blackhole", "10.200.77.0/24"));
    },
    expect: { kind: "leaked", resource: "route" },
    inState: false,
  },
  {
    name: "a policy rule",
    plant: async (stage) => {
      await stage.ip("rule", "add", "from", "10.200.0.0/16", "lookup", "77");
      stage.defer(() => stage.ip("rule", "del", "from", "10.200.0.0/16", "lookup", "77"));
    },
    expect: { kind: "leaked", resource: "rule" },
    inState: false,
  },
  {
    name: "an nftables table with our tag",
    plant: async (stage) => {
      await stage.nft(`add table ip computer-host-${stage.scope.tag}-old`);
      stage.defer(() => stage.nft(`delete table ip computer-host-${stage.scope.tag}-old`));
    },
    expect: { kind: "leaked", resource: "nft" },
    inState: true,
  },
  {
    name: "an opened slot that no machine holds",
    plant: async (stage) => {
      const element = `element inet computer-host-${stage.scope.tag} opened { "ch${stage.scope.tag}v2" . 10.200.0.7 }`;
      await stage.nft(`add ${element}`);
      stage.defer(() => stage.nft(`delete ${element}`));
    },
    expect: { kind: "leaked", resource: "nft" },
    inState: true,
  },
  {
    name: "a rule in a table of somebody else",
    plant: async (stage) => {
      await stage.nft("table ip other { chain c { tcp dport 22 drop; }; }");
      stage.defer(() => stage.nft("delete table ip other"));
    },
    expect: { kind: "leaked", resource: "nft" },
    inState: false,
  },
  {
    name: "a changed sysctl",
    plant: async (stage) => {
      await sysctl("1")(stage);
      stage.defer(() => sysctl("0")(stage));
    },
    expect: { kind: "altered", resource: "sysctl" },
    inState: false,
  },
  {
    name: "a cgroup of a jail that is gone",
    plant: (stage) => stage.cgroup(`computer-host-${stage.scope.tag}/j9`),
    expect: { kind: "leaked", resource: "cgroup" },
    inState: true,
  },
  {
    name: "a mount below the root",
    plant: async (stage) => {
      const target = join(stage.scope.rootDir, "jails/firecracker/j1/root");
      await run(["mount", "-t", "tmpfs", "none", target]);
      stage.defer(() => run(["umount", target]));
    },
    expect: { kind: "leaked", resource: "mount" },
    inState: false,
  },
  {
    name: "a mount on a machine's folder that no machine has",
    plant: async (stage) => {
      await stage.folder("machines/gone");
      await run(["mount", "-t", "tmpfs", "none", join(stage.scope.rootDir, "machines/gone")]);
      stage.defer(() => run(["umount", join(stage.scope.rootDir, "machines/gone")]));
    },
    expect: { kind: "leaked", resource: "mount" },
    inState: true,
  },
  {
    name: "a loop device over a deleted file of ours",
    plant: async (stage) => {
      const file = join(stage.scope.rootDir, "left.img");
      await writeFile(file, Buffer.alloc(65_536));
      const device = (await run(["losetup", "--find", "--show", file])).stdout.trim();
      stage.defer(() => run(["losetup", "--detach", device]));
      await rm(file);
    },
    expect: { kind: "leaked", resource: "loop" },
    inState: true,
  },
  {
    name: "a process in a jail that no machine has",
    plant: async (stage) => {
      await stage.folder("jails/firecracker/j8/root");
      await stage.process(join(stage.scope.rootDir, "jails/firecracker/j8/root"));
    },
    expect: { kind: "leaked", resource: "process" },
    inState: true,
  },
  {
    name: "a process whose jail was deleted under it",
    plant: async (stage) => {
      const jail = join(stage.scope.rootDir, "jails/firecracker/j7");
      await stage.folder("jails/firecracker/j7/root");
      await stage.process(join(jail, "root"));
      await rm(jail, { recursive: true });
    },
    expect: { kind: "leaked", resource: "process" },
    inState: true,
  },
  {
    name: "a process in a slot that waits",
    plant: (stage) => stage.process("/", `ch-${stage.scope.tag}-2`),
    expect: { kind: "leaked", resource: "process" },
    inState: true,
  },
  {
    name: "a socket that listens in a slot that waits",
    plant: (stage) => stage.socket(join(stage.scope.watch?.[0] ?? "", "api.sock"), `ch-${stage.scope.tag}-2`),
    expect: { kind: "leaked", resource: "socket" },
    inState: true,
  },
  {
    name: "a file in the folder of a machine",
    plant: (stage) => stage.file("machines/m1/memory"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "the folder of a machine that is gone",
    plant: (stage) => stage.folder("machines/m9"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "the folder of a snapshot that is gone",
    plant: (stage) => stage.folder("snapshots/s9"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "the folder of a jail",
    plant: (stage) => stage.folder("jails/firecracker/j9/root"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "a temporary file that a commit left",
    plant: (stage) => stage.file("state/state.json.0a0b0c0d.tmp"),
    expect: { kind: "leaked", resource: "file" },
    inState: true,
  },
  {
    name: "a file elsewhere in the root",
    plant: (stage) => stage.file("core"),
    expect: { kind: "leaked", resource: "file" },
    inState: false,
  },
  {
    name: "a link in a watched folder",
    plant: (stage) =>
      symlink("/", join(stage.scope.watch?.[0] ?? "", "link")).then(() =>
        stage.defer(() => rm(join(stage.scope.watch?.[0] ?? "", "link"))),
      ),
    expect: { kind: "leaked", resource: "file" },
    inState: false,
  },
  {
    name: "a disk that others may read",
    plant: async (stage) => {
      const disk = join(stage.scope.rootDir, "machines/m1/disk.img");
      await chmod(disk, 0o666);
      stage.defer(() => chmod(disk, 0o644));
    },
    expect: { kind: "altered", resource: "file" },
    inState: false,
  },
];
