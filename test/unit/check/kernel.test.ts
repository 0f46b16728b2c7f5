import assert from "node:assert/strict";
import { test } from "node:test";
import { cgroupFindings } from "../../../src/check/cgroups.ts";
import type { HostFiles } from "../../../src/check/host-files.ts";
import { isKernelAtLeast, kernelFindings } from "../../../src/check/kernel.ts";
import { kvmFindings } from "../../../src/check/kvm.ts";
import { about, found, hostOf } from "./tree.ts";

const RELEASE = "proc/sys/kernel/osrelease";
const FLAW = "sys/devices/system/cpu/vulnerabilities/itlb_multihit";
const kvm = (files: HostFiles) => kvmFindings(files, true);

const GOOD_KVM = {
  "dev/kvm": "",
  [RELEASE]: "6.1.0-28-amd64\n",
  [FLAW]: "Not affected\n",
  "sys/module/kvm_intel/parameters/ept": "Y\n",
  "sys/module/kvm/parameters/nx_huge_pages": "never\n",
  "sys/module/kvm/parameters/min_timer_period_us": "200\n",
  "proc/cpuinfo": "flags\t\t: fpu vmx ept\n",
};

test("versions of kernels are compared by their numbers", () => {
  using files = hostOf({ [RELEASE]: "6.18.44-fc-v669\n" });
  assert.ok(isKernelAtLeast(files, 6, 9) && isKernelAtLeast(files, 5, 99) && isKernelAtLeast(files, 6, 18));
  assert.ok(!isKernelAtLeast(files, 6, 19) && !isKernelAtLeast(files, 7, 0));
});

test("KVM on bare metal is ok in every line", () => {
  assert.deepEqual(found(GOOD_KVM, kvm), [
    "ok kvm",
    "ok nested paging",
    "ok nx huge pages",
    "ok timer period",
  ]);
});

test("no KVM fails where the VMM needs it, and is a warning where it does not", () => {
  assert.match(found({}, kvm)[0] ?? "", /^FAIL kvm: there is no \/dev\/kvm/);
  assert.match(found({}, (files) => kvmFindings(files, false))[0] ?? "", /^warn kvm: .*emulation/);
});

test("KVM of another kind, or in a virtual machine, is warned of", () => {
  const { "sys/module/kvm_intel/parameters/ept": _ept, ...rest } = GOOD_KVM;
  const pvm = found({ ...rest, "sys/module/kvm_pvm/x": "" }, kvm);
  assert.match(pvm[0] ?? "", /^warn kvm: \/dev\/kvm opens, but by kvm_pvm/);
  assert.deepEqual(about("nested paging", pvm), []);
  const nested = found({ ...GOOD_KVM, "proc/cpuinfo": "flags\t\t: fpu vmx hypervisor ept\n" }, kvm);
  assert.match(nested[0] ?? "", /^warn kvm: .*itself a virtual machine/);
});

test("the module's parameters are judged", () => {
  const line = (what: string, files: object) => about(what, found({ ...GOOD_KVM, ...files }, kvm))[0] ?? "";
  assert.match(line("nested paging", { "sys/module/kvm_intel/parameters/ept": "N\n" }), /^warn .*ept=1/);
  const nx = "sys/module/kvm/parameters/nx_huge_pages";
  const affected = { [FLAW]: "KVM: Mitigation: Split huge pages\n" };
  assert.match(line("nx huge pages", { ...affected, [nx]: "N\n" }), /^warn .*can halt this CPU/);
  assert.match(line("nx huge pages", { ...affected, [nx]: "Y\n" }), /^ok/);
  assert.match(line("nx huge pages", { [nx]: "Y\n" }), /^warn .*slows starts/);
  assert.match(line("nx huge pages", { [nx]: "Y\n", [RELEASE]: "6.18.1\n" }), /^ok/);
  assert.match(line("nx huge pages", { [nx]: "Y\n", [RELEASE]: "5.10.1\n" }), /^ok/);
  const period = "sys/module/kvm/parameters/min_timer_period_us";
  assert.match(line("timer period", { [period]: "10\n" }), /^warn .*every 10 µs/);
});

const GOOD_KERNEL = {
  [RELEASE]: "6.1.128\n",
  "proc/sys/kernel/printk": "1\t4\t1\t7\n",
  "proc/cmdline": "console=ttyS0 quiet loglevel=1\n",
  "proc/sys/kernel/random/entropy_avail": "256\n",
  "proc/321/comm": "chronyd\n",
};

test("a kernel as production wants it is ok in every line", () => {
  assert.deepEqual(found(GOOD_KERNEL, kernelFindings), ["ok kernel", "ok console", "ok entropy", "ok clock"]);
});

test("kernels that Firecracker is not tested on, chatty consoles, little entropy and clocks on their own are warned of", () => {
  const line = (what: string, files: object) =>
    about(what, found({ ...GOOD_KERNEL, ...files }, kernelFindings))[0] ?? "";
  assert.match(line("kernel", { [RELEASE]: "6.12.1\n" }), /^warn kernel: 6\.12\.1: Firecracker is tested on/);
  assert.match(line("kernel", { [RELEASE]: "6.19.0\n" }), /^warn/);
  assert.match(line("kernel", { [RELEASE]: "5.4.0\n" }), /^warn .*older/);
  assert.match(line("kernel", { [RELEASE]: "6.18-rc1\n" }), /^ok/);
  assert.match(line("console", { "proc/sys/kernel/printk": "7\t4\t1\t7\n" }), /^warn .*loglevel=1/);
  assert.match(
    line("console", { "proc/sys/kernel/printk": "7\t4\t1\t7\n", "proc/cmdline": "console=tty0\n" }),
    /^ok/,
  );
  assert.match(line("entropy", { "proc/sys/kernel/random/entropy_avail": "12\n" }), /^warn/);
  assert.match(line("clock", { "proc/321/comm": "bash\n" }), /^warn/);
  assert.match(line("clock", { "proc/321/comm": "bash\n", "run/systemd/timesync/synchronized": "" }), /^ok/);
});

const V2_MOUNT = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,favordynmods 0 0\n";
const V2 = {
  [RELEASE]: "6.1.128\n",
  "proc/mounts": V2_MOUNT,
  "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
  "sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids\n",
};

test("cgroups are ok on version 2 and on version 1, where memory, cpu and pids are there", () => {
  assert.deepEqual(found(V2, cgroupFindings), ["ok cgroups", "ok favordynmods"]);
  const v1 = ["cpu,cpuacct", "memory", "pids"]
    .map((name) => `cgroup /sys/fs/cgroup/${name} cgroup rw,relatime,${name} 0 0\n`)
    .join("");
  const host = {
    [RELEASE]: "5.10.1\n",
    "proc/mounts": `${v1}cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n`,
    "sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n",
  };
  assert.deepEqual(found(host, cgroupFindings), ["ok cgroups", "ok favordynmods"]);
  const [line = ""] = found({ ...host, "proc/mounts": v1.replace(/.*pids.*\n/, "") }, cgroupFindings);
  assert.match(line, /^warn cgroups: no controller for pids/);
});

test("cgroups in which no group can be made for a machine fail", () => {
  const first = (content: Record<string, string>) => found(content, cgroupFindings)[0] ?? "";
  // The hierarchy's real root hands controllers down whatever runs in it; a container's group does not.
  const none = { ...V2, "sys/fs/cgroup/cgroup.subtree_control": "\n", "sys/fs/cgroup/cgroup.procs": "1\n" };
  assert.equal(first(none), "ok cgroups");
  const container = { ...none, "sys/fs/cgroup/cgroup.events": "populated 1\n" };
  assert.match(first(container), /^FAIL cgroups: .*container.*memory, cpu, pids/);
  assert.equal(first({ ...container, "sys/fs/cgroup/cgroup.procs": "" }), "ok cgroups");
  assert.equal(
    first({ ...container, "sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids\n" }),
    "ok cgroups",
  );
  assert.match(first({ ...V2, "proc/mounts": V2_MOUNT.replace("rw,", "ro,") }), /^FAIL cgroups: .*read-only/);
});

test("cgroups that favour readers are warned of from Linux 6.0 on, with the command for the version at hand", () => {
  const plain = { ...V2, "proc/mounts": V2_MOUNT.replace(",favordynmods", "") };
  assert.match(
    found(plain, cgroupFindings)[1] ?? "",
    /^warn favordynmods: .*remount,favordynmods \/sys\/fs\/cgroup/,
  );
  assert.equal(found({ ...plain, [RELEASE]: "5.10.1\n" }, cgroupFindings)[1], "ok favordynmods");
  assert.equal(
    found({ ...plain, "proc/cmdline": "cgroup_favordynmods=true\n" }, cgroupFindings)[1],
    "ok favordynmods",
  );
});
