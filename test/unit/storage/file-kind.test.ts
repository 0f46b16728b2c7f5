import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { isInsideAddress } from "../../../src/storage/addresses.ts";
import { kindProblem } from "../../../src/storage/file-kind.ts";
import { fakeKernel, fakeRootfs } from "./support.ts";

function withBytes(offset: number, bytes: string | Buffer): Buffer {
  const head = Buffer.alloc(0x10048);
  head.set(Buffer.from(bytes as string, "latin1"), offset);
  return head;
}

function elf(machine: number): Buffer {
  const head = withBytes(0, "\x7fELF\x02\x01");
  head.writeUInt16LE(machine, 18);
  return head;
}

test("kernels are bzImages and ELF files for x86-64", () => {
  assert.equal(kindProblem("kernel", fakeKernel()), undefined);
  assert.equal(kindProblem("kernel", elf(0x3e)), undefined);
  assert.match(kindProblem("kernel", elf(0xb7)) ?? "", /not a kernel for x86-64/);
  assert.match(kindProblem("kernel", gzipSync(fakeKernel())) ?? "", /compressed with gzip/);
  assert.match(kindProblem("kernel", Buffer.alloc(0)) ?? "", /it is empty/);
  assert.match(kindProblem("kernel", fakeRootfs()) ?? "", /something else/);
});

test("root disks are raw filesystems, and the sentence says what else they look like", () => {
  assert.equal(kindProblem("rootfs", fakeRootfs()), undefined);
  assert.equal(kindProblem("rootfs", withBytes(0, "XFSB")), undefined);
  assert.equal(kindProblem("rootfs", withBytes(0x10040, "_BHRfS_M")), undefined);
  for (const [head, sentence] of [
    [withBytes(0x200, "EFI PART"), /partition table/],
    [withBytes(0x1fe, "\x55\xaa"), /partition table/],
    [withBytes(0, "QFI\xfb"), /qcow2/],
    [withBytes(0, "hsqs"), /squashfs/],
    [withBytes(0x101, "ustar"), /tar archive/],
    [gzipSync(fakeRootfs()), /gzip/],
    [Buffer.from("short"), /something else/],
  ] as const) {
    assert.match(kindProblem("rootfs", head) ?? "", sentence);
  }
});

test("addresses inside are loopback, link-local, private, shared and multicast ones, in whatever clothes", () => {
  const inside = [
    "127.0.0.1",
    "10.1.2.3",
    "172.31.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
  ];
  const inside6 = [
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::a00:1",
  ];
  for (const address of [...inside, ...inside6, "224.0.0.1", "ff02::1", "nonsense"]) {
    assert.equal(isInsideAddress(address), true, address);
  }
  for (const address of [
    "93.184.216.34",
    "172.32.0.1",
    "100.128.0.1",
    "2606:2800:220:1::1",
    "::ffff:93.184.216.34",
  ]) {
    assert.equal(isInsideAddress(address), false, address);
  }
});
