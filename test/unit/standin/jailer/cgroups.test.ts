import assert from "node:assert/strict";
import { test } from "node:test";

import { parseCgroupMounts } from "../../../../src/standin/jailer/cgroups.ts";
import { userfaultfdMinor } from "../../../../src/standin/jailer/jail-dir.ts";

test("cgroup mounts of both versions are found among others", () => {
  const mounts = parseCgroupMounts(
    [
      "proc /proc proc rw,nosuid 0 0",
      "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0",
      "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0",
      "",
    ].join("\n"),
  );
  assert.deepEqual(mounts, [
    { dir: "/sys/fs/cgroup/cpu,cpuacct", version: 1, options: ["rw", "nosuid", "cpu", "cpuacct"] },
    { dir: "/sys/fs/cgroup/unified", version: 2, options: ["rw", "nsdelegate"] },
  ]);
});

test("the device number of userfaultfd is told only where the kernel has it", () => {
  assert.equal(userfaultfdMinor(" 10 other\n257 userfaultfd\n200 tun\n"), 257);
  assert.equal(userfaultfdMinor("200 tun\n"), undefined);
});
