import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { Fault } from "../../../../src/standin/vmm/fault.ts";
import {
  readStateFile,
  SNAPSHOT_VERSION,
  type SnapshotState,
  writeStateFile,
} from "../../../../src/standin/vmm/state-file.ts";

const DEVICES = Buffer.from([0x51, 0x45, 0x56, 0x4d, 0, 0x0a, 0xff]);
const STATE: SnapshotState = {
  accelerator: "tcg",
  machine_config: {
    vcpu_count: 2,
    mem_size_mib: 256,
    smt: false,
    cpu_template: null,
    track_dirty_pages: true,
    huge_pages: "None",
  },
  boot_source: { kernel_image_path: "/kernel", initrd_path: null, boot_args: "quiet" },
  drives: [],
  network_interfaces: [],
  guest_macs: [],
  entropy: null,
  balloon: null,
  mmds_config: null,
};

async function inFolder(check: (path: string) => Promise<void>): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "state-file-"));
  try {
    await check(join(dir, "state"));
  } finally {
    rmSync(dir, { recursive: true });
  }
}

async function write(path: string): Promise<void> {
  await writeStateFile(path, STATE, async (target) => writeFileSync(target, DEVICES));
}

/** A file that is whole but says that it is of another version. */
function ofVersion(path: string, version: string): void {
  const content = Buffer.from(
    readFileSync(path).toString("latin1").slice(0, -32).replace(SNAPSHOT_VERSION, version),
    "latin1",
  );
  writeFileSync(path, Buffer.concat([content, createHash("sha256").update(content).digest()]));
}

test("what was written is read, and the devices lie where it says", async () => {
  await inFolder(async (path) => {
    await write(path);
    const { state, devicesOffset } = readStateFile(path);
    assert.deepEqual(state, STATE);
    assert.ok(readFileSync(path).subarray(devicesOffset, -32).equals(DEVICES));
    assert.ok(statSync(path).size < 4096);
  });
});

test("a flipped bit, wherever it is, is refused", async () => {
  await inFolder(async (path) => {
    await write(path);
    const whole = readFileSync(path);
    for (let at = 0; at < whole.length; at++) {
      const bytes = Buffer.from(whole);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      writeFileSync(path, bytes);
      assert.throws(() => readStateFile(path), Fault, `byte ${at}`);
    }
  });
});

test("a file that was cut, wherever it was, is refused", async () => {
  await inFolder(async (path) => {
    await write(path);
    const whole = readFileSync(path);
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(path, whole.subarray(0, length));
      assert.throws(() => readStateFile(path), Fault, `${length} bytes`);
    }
  });
});

test("another version is refused by its name", async () => {
  await inFolder(async (path) => {
    await write(path);
    ofVersion(path, SNAPSHOT_VERSION);
    assert.deepEqual(readStateFile(path).state, STATE);
    ofVersion(path, "v1.0.0-qemu");
    assert.throws(() => readStateFile(path), /Invalid data version: 1\.0\.0-qemu/);
  });
});

test("a refusal of the devices is passed on as it is", async () => {
  await inFolder(async (path) => {
    const refusal = new Fault("the devices cannot be saved");
    await assert.rejects(
      writeStateFile(path, STATE, async () => {
        throw refusal;
      }),
      refusal,
    );
  });
});
