import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

test("--check tells a line for each thing, ends with 1 when something keeps machines from being made, and makes nothing", () => {
  const folder = mkdtempSync(join(tmpdir(), "check-"));
  try {
    const rootDir = join(folder, "root");
    const { status, stdout, stderr } = spawnSync(process.execPath, ["src/main.ts", "--check"], {
      encoding: "utf8",
      env: {
        PATH: process.env["PATH"],
        FIRECRACKER_HOST_ROOT_DIR: rootDir,
        FIRECRACKER_HOST_IMAGE_DIR: join(folder, "images"),
        FIRECRACKER_HOST_COLOUR: "red",
      },
    });
    assert.equal(stderr, "");
    assert.equal(status, 1);
    const lines = stdout.trimEnd().split("\n");
    for (const line of lines) assert.match(line, /^(ok {2}|warn|FAIL) \S.{10,}/);
    assert.match(stdout, /^FAIL image +the default image debian-slim is not in .*: run make images$/m);
    assert.match(stdout, /^warn setting +FIRECRACKER_HOST_COLOUR is not a setting/m);
    for (const what of [
      "user",
      "vmm",
      "kvm",
      "cgroups",
      "root folder",
      "tun",
      "smt",
      "swap",
      "ksm",
      "kernel",
      "clock",
    ])
      assert.ok(
        lines.some((line) => line.slice(5).startsWith(`${what} `)),
        `nothing about ${what}`,
      );
    assert.ok(!existsSync(rootDir));
    assert.deepEqual(readdirSync(folder), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
