import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { egressFinding, poolFinding } from "../../../src/check/network.ts";
import { programFindings } from "../../../src/check/programs.ts";
import { filesystemOf, storageFindings } from "../../../src/check/storage.ts";
import { ownerFinding, seccompOfRunning, vmmFindings } from "../../../src/check/vmm.ts";
import { planSlots } from "../../../src/network/plan.ts";
import { about, found, hostOf } from "./tree.ts";

const MOUNTINFO = [
  "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
  "30 21 8:2 / /var/lib rw,relatime shared:2 - xfs /dev/sdb1 rw",
  "31 21 0:5 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw",
].join("\n");

function folder(): Disposable & { readonly path: string } {
  const path = mkdtempSync(join(tmpdir(), "check-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

test("the filesystem of a folder is the one of the mount that is nearest to it", () => {
  assert.equal(filesystemOf(MOUNTINFO, "/var/lib/computer-host"), "xfs");
  assert.equal(filesystemOf(MOUNTINFO, "/var/library"), "ext4");
  assert.equal(filesystemOf(`${MOUNTINFO}\n40 21 0:9 / / rw - overlay none rw`, "/srv"), "overlay");
});

test("the root folder: filesystem, mount options, clones and the default image", () => {
  using images = folder();
  mkdirSync(join(images.path, "debian-slim"));
  writeFileSync(join(images.path, "debian-slim/manifest.json"), "{}");
  const look = (rootDir: string, diskCloneMode: "auto" | "reflink" | "copy", defaultImage = "debian-slim") =>
    found({ "proc/self/mountinfo": MOUNTINFO }, (files) =>
      storageFindings(files, { rootDir, imageDir: images.path, defaultImage, diskCloneMode }),
    ).filter((line) => !line.includes("disk space"));
  assert.deepEqual(look("/var/lib/computer-host", "auto"), ["ok root folder", "ok disk clones", "ok image"]);
  assert.match(look("/srv/x", "auto")[1] ?? "", /^warn disk clones: ext4 clones nothing/);
  assert.match(look("/srv/x", "reflink")[1] ?? "", /^FAIL disk clones: .*ext4/);
  assert.match(look("/var/lib/x", "copy")[1] ?? "", /^warn disk clones/);
  assert.match(look("/tmp/x", "auto")[0] ?? "", /^FAIL root folder: .*nodev/);
  assert.match(look("/var/lib/x", "auto", "other")[2] ?? "", /^FAIL image: .*make images/);
});

test("root, the programs and many open files are wanted; the stand-ins want more programs", () => {
  const bin = (...names: string[]) => Object.fromEntries(names.map((name) => [`usr/bin/${name}`, ""]));
  const limits = (hard: string) => ({
    "proc/self/limits": `Max processes             1   2   processes\nMax open files            1024                 ${hard}                files     \n`,
  });
  const good = { ...bin("ip", "cp"), "usr/sbin/nft": "", ...limits("1048576") };
  assert.deepEqual(
    found(good, (files) => programFindings(files, 0, true)),
    ["ok user", "ok programs", "ok open files"],
  );
  const poor = found({ ...bin("ip"), ...limits("4096") }, (files) => programFindings(files, 1000, false));
  assert.match(poor[0] ?? "", /^FAIL user/);
  assert.match(poor[1] ?? "", /^FAIL programs: missing: nft \(package nftables\), cp .*, qemu-system-x86_64/);
  assert.match(poor[2] ?? "", /^warn open files: at most 4096/);
  assert.deepEqual(
    found({ ...good, ...limits("unlimited") }, (files) => programFindings(files, 0, true)).at(-1),
    "ok open files",
  );
});

test("the pool must be free, and there must be a way out", () => {
  const plan = planSlots({ tag: "abcdef", cidr: "10.200.0.0/16", uidBase: 200_000 });
  assert.equal(poolFinding(plan, "10.200.0.0/16", [{ dst: "10.201.0.0/16" }]).level, "ok");
  const clash = poolFinding(plan, "10.200.0.0/16", [{ dst: "10.200.3.0/24", dev: "eth1" }]);
  assert.equal(clash.level, "FAIL");
  assert.match(clash.text, /10\.200\.3\.0\/24 on eth1/);
  using files = hostOf({ "proc/sys/net/ipv4/conf/eth0/forwarding": "0\n" });
  assert.match(egressFinding(files, "eth0").text, /a start turns its forwarding on/);
  assert.equal(egressFinding(files, "eth7").level, "warn");
  assert.match(egressFinding(files, undefined).text, /no default route/);
});

/** A program that names these versions, and holds `more`. */
function program(path: string, version: string, more = ""): void {
  writeFileSync(
    path,
    `#!/bin/sh\n# ${more}\ncase $1 in --snapshot-version) echo v9.0.0 ;; *) echo "X v${version}" ;; esac\n`,
  );
  chmodSync(path, 0o755);
}

test("the pair that a start would take is judged by version, owner and how it was built", async () => {
  using at = folder();
  using files = hostOf({});
  const path = (name: string) => join(at.path, name);
  const fallback = {
    firecrackerPath: path("fallback"),
    jailerPath: path("fallback-jailer"),
    label: "the fallback",
    reason: "nothing better is there",
  };
  for (const name of ["fallback", "fallback-jailer", "firecracker", "jailer"]) program(path(name), "1.16.0");
  const look = async (named: { firecrackerPath?: string; jailerPath?: string }) => {
    const { findings, isReal } = await vmmFindings(
      files,
      { searchPath: [], fallback, provenFile: path("proven"), ...named },
      "/jails",
    );
    return { isReal, lines: findings.map(({ level, what, text }) => `${level} ${what}: ${text}`) };
  };
  const both = { firecrackerPath: path("firecracker"), jailerPath: path("jailer") };
  const real = await look(both);
  assert.equal(real.isReal, true);
  assert.match(real.lines[0] ?? "", /^ok vmm: firecracker 1\.16\.0: named by/);
  // Below a folder for everybody's temporary files, nothing is root's alone.
  assert.equal(about("vmm owner", real.lines).length, 2);
  assert.match(real.lines.at(-1) ?? "", /^ok seccomp: .*musl/);

  // The mark lies across the border of two pieces that are read.
  program(both.firecrackerPath, "1.16.0", `${"x".repeat(65_536 - 16)}GLIBC_2.34`);
  assert.match((await look(both)).lines.at(-1) ?? "", /^warn seccomp: .*glibc/);

  program(both.jailerPath, "1.15.0");
  assert.match((await look(both)).lines[0] ?? "", /^FAIL vmm: .*take both from one release/);
  program(both.firecrackerPath, "1.14.0");
  assert.match((await look(both)).lines[0] ?? "", /^FAIL vmm: .*1\.15 or newer is needed/);
  assert.match(
    (await look({ jailerPath: both.jailerPath })).lines[0] ?? "",
    /^FAIL vmm: .*FIRECRACKER_BINARY_PATH is not/,
  );
  const long = await vmmFindings(
    files,
    { searchPath: [], fallback, provenFile: path("proven") },
    `/${"x".repeat(90)}`,
  );
  assert.match(long.findings[0]?.text ?? "", /bytes too long/);
  const none = await look({});
  assert.equal(none.isReal, false);
  assert.match(none.lines[0] ?? "", /^warn vmm: the fallback 1\.16\.0: nothing better is there/);
});

test("programs that others than root may replace are warned of", () => {
  assert.equal(ownerFinding("/").level, "ok");
  using at = folder();
  chmodSync(at.path, 0o777);
  const { level, text } = ownerFinding(at.path);
  assert.equal(level, "warn");
  assert.match(text, /has mode 777|belongs to uid/);
});

test("the kernel's word on threads of VMMs that run is the proof", () => {
  const vmm = (pid: number, ...filters: number[]) =>
    Object.fromEntries([
      [`proc/${pid}/root`, "-> ../../jails/firecracker/x/root"],
      ...filters.map((filter, index) => [
        `proc/${pid}/task/${pid + index}/status`,
        `Name:\tx\nSeccomp:\t${filter}\n`,
      ]),
    ]);
  const look = (content: Record<string, string>) =>
    found({ "jails/firecracker/x/root/dev/null": "", ...content }, (files) =>
      seccompOfRunning(files, "/jails"),
    );
  const other = { "proc/7/root": "-> ../..", "proc/7/task/7/status": "Seccomp:\t0\n" };
  assert.deepEqual(look(other), []);
  assert.deepEqual(look({ ...other, ...vmm(50, 2, 2), ...vmm(60, 2) }), ["ok seccomp"]);
  assert.match(look({ ...vmm(50, 2, 2), ...vmm(60, 2, 0) })[0] ?? "", /^warn seccomp: .*pids 60$/);
});
