import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { run } from "../../../src/system/run.ts";
import type { Scope } from "./item.ts";

/** Where a cgroup of ours may lie on this host: the v1 controllers that are mounted, and v2. */
const CGROUP_MOUNTS = ["memory", "cpu", "pids", "unified", ""]
  .map((name) => join("/sys/fs/cgroup", name))
  .filter((path) => existsSync(join(path, "cgroup.procs")));

/**
 * A host that looks as if a daemon ran on it, made of real parts of the kernel in a network namespace of its own: for
 * tests of the oracle. All that was made is unmade, last first, at the end.
 */
export class Stage {
  readonly scope: Scope;
  readonly #made = new AsyncDisposableStack();

  private constructor(scope: Scope) {
    this.scope = scope;
  }

  /** An empty root folder, an empty watched folder and a namespace with a loopback link. */
  static async make(): Promise<Stage> {
    const rootDir = await realpath(await mkdtemp(join(tmpdir(), "oracle-root-")));
    const watched = await realpath(await mkdtemp(join(tmpdir(), "oracle-watched-")));
    const tag = randomBytes(3).toString("hex");
    const stage = new Stage({ rootDir, tag, netns: `oracle-${tag}`, watch: [watched] });
    for (const folder of [rootDir, watched])
      stage.#made.defer(() => rm(folder, { recursive: true, force: true }));
    // Last of all: the group that the groups of jails lie in, where any was made.
    const parents = CGROUP_MOUNTS.map((mount) => join(mount, `computer-host-${tag}`));
    stage.#made.defer(async () => {
      for (const parent of parents.filter(existsSync)) await run(["rmdir", parent]);
    });
    await stage.namespace(`oracle-${tag}`);
    await stage.ip("link", "set", "lo", "up");
    return stage;
  }

  /** The same host, with a list of undos of its own. */
  sub(): Stage {
    return new Stage(this.scope);
  }

  /** Defers the undo of something that a test made by itself. */
  defer(undo: () => Promise<unknown>): void {
    this.#made.defer(async () => {
      await undo();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#made.disposeAsync();
  }

  /** Runs a program in the namespace that plays the host, or in `netns`. */
  async exec(argv: readonly string[], netns = this.scope.netns ?? "", input?: string): Promise<void> {
    await run(["nsenter", `--net=/run/netns/${netns}`, ...argv], input === undefined ? {} : { input });
  }

  ip(...args: readonly string[]): Promise<void> {
    return this.exec(["ip", ...args]);
  }

  nft(script: string): Promise<void> {
    return this.exec(["nft", "-f", "-"], this.scope.netns, script);
  }

  async namespace(name: string): Promise<void> {
    await run(["ip", "netns", "add", name]);
    this.defer(() => run(["ip", "netns", "del", name], { okCodes: [0, 1] }));
  }

  /** A slot as the network room makes it, as far as the oracle looks: namespace, veth pair, tap of `uid`. */
  async slot(index: number, uid: number): Promise<void> {
    const netns = `ch-${this.scope.tag}-${index}`;
    const device = `ch${this.scope.tag}v${index}`;
    await this.namespace(netns);
    await this.ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", netns);
    await this.ip("addr", "add", `10.200.0.${index * 4 + 1}/30`, "dev", device);
    await this.exec(["ip", "tuntap", "add", "tap0", "mode", "tap", "user", String(uid)], netns);
  }

  /** Writes a file (a path below the root, or an absolute one), with its folders. */
  async file(path: string, content = ""): Promise<void> {
    const full = resolve(this.scope.rootDir, path);
    await this.folder(dirname(full));
    await writeFile(full, content);
    this.defer(() => rm(full, { force: true }));
  }

  async folder(path: string): Promise<void> {
    const made = await mkdir(resolve(this.scope.rootDir, path), { recursive: true });
    // Folders outside of the root are shared with daemons that run.
    if (made?.startsWith(this.scope.rootDir) === true)
      this.defer(() => rm(made, { recursive: true, force: true }));
  }

  /** Makes the cgroup `path` in every hierarchy of this host; returns the folders. */
  async cgroup(path: string): Promise<string[]> {
    const folders = CGROUP_MOUNTS.map((mount) => join(mount, path));
    for (const folder of folders) {
      await mkdir(folder, { recursive: true });
      this.defer(() => run(["rmdir", folder], { okCodes: [0, 1] }));
    }
    return folders;
  }

  /** A process that changes its root to `root`, in `netns`, and sleeps; returns its pid. */
  process(root: string, netns = this.scope.netns ?? ""): Promise<number> {
    return this.#perl("chroot $ARGV[0] or die; chdir '/'", root, netns);
  }

  /** A Unix socket that listens, with the process that holds it. */
  async socket(path: string, netns = this.scope.netns ?? ""): Promise<void> {
    this.defer(() => rm(path, { force: true }));
    await this.#perl(
      "use IO::Socket::UNIX; our $s = IO::Socket::UNIX->new(Local => $ARGV[0], Listen => 1) or die",
      path,
      netns,
    );
  }

  /** Perl is on every Debian, and once it runs it needs no file: it may change its root. */
  async #perl(script: string, argument: string, netns: string): Promise<number> {
    const child = spawn(
      "nsenter",
      [`--net=/run/netns/${netns}`, "perl", "-e", `${script}; $| = 1; print 'up'; sleep 600`, argument],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    this.defer(async () => {
      if (child.exitCode === null && child.kill("SIGKILL")) await once(child, "exit");
    });
    await once(child.stdout, "data", { signal: AbortSignal.timeout(10_000) });
    if (child.pid === undefined) throw new Error("perl did not start");
    return child.pid;
  }
}
