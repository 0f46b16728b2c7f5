import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { tinyGuest } from "./support/tiny-guest.ts";
import { Vmm } from "./support/vmm.ts";

const START = { action_type: "InstanceStart" };

test("the guest gets its arguments, first and unchanged", async () => {
  await using vmm = await Vmm.start();
  await vmm.configureTinyGuest("idle", { boot_args: "tiny=idle console=ttyS0 seed=/dev/vdb,0123abcd" });
  expectDone(await vmm.call("PUT", "/actions", START));
  await vmm.console.waitForText("ready\n");
  const seen = vmm.console.fact("arguments");
  assert.ok(seen.startsWith("tiny=idle console=ttyS0 seed=/dev/vdb,0123abcd"), seen);
  assert.equal(vmm.console.fact("modules"), "0");
});

test("without boot_args the guest gets Firecracker's own, which end it on a reboot", async () => {
  await using vmm = await Vmm.start();
  expectDone(await vmm.call("PUT", "/boot-source", { kernel_image_path: tinyGuest() }));
  expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath }));
  expectDone(await vmm.call("PUT", "/actions", START));
  await vmm.console.waitForText("ready\n");
  assert.match(vmm.console.fact("arguments"), /\breboot=k panic=1\b/);
});

test("the guest gets its initrd", async () => {
  await using vmm = await Vmm.start();
  const initrd_path = vmm.dir.file("initrd");
  writeFileSync(initrd_path, Buffer.alloc(70_000, 1));
  await vmm.configureTinyGuest("idle", { initrd_path });
  expectDone(await vmm.call("PUT", "/actions", START));
  await vmm.console.waitForText("ready\n");
  assert.equal(vmm.console.fact("modules"), "1");
});

test("the last boot source counts", async () => {
  await using vmm = await Vmm.start();
  await vmm.configureTinyGuest("count");
  await vmm.configureTinyGuest("idle", { boot_args: "tiny=idle second" });
  const source = expectBody(await vmm.call("GET", "/vm/config"))["boot-source"];
  const expected = { kernel_image_path: tinyGuest(), initrd_path: null, boot_args: "tiny=idle second" };
  assert.deepEqual(source, expected);
});

describe("refused boot sources", () => {
  const kernel_image_path = tinyGuest();
  const refused: [string, unknown][] = [
    ["a kernel that is not there", { kernel_image_path: "/nowhere/vmlinux" }],
    ["an initrd that is not there", { kernel_image_path, initrd_path: "/nowhere/initrd" }],
    ["no kernel", { boot_args: "a" }],
    ["an unknown field", { kernel_image_path, cmdline: "a" }],
    ["arguments that are too long", { kernel_image_path, boot_args: "a".repeat(2_048) }],
    ["arguments as a list", { kernel_image_path, boot_args: ["a"] }],
  ];
  for (const [name, body] of refused) {
    test(name, async () => {
      await using vmm = await Vmm.start();
      expectFault(await vmm.call("PUT", "/boot-source", body));
      assert.equal(await vmm.state(), "Not started");
    });
  }
});

test("a start without a boot source is refused and can be made good", async () => {
  await using vmm = await Vmm.start();
  expectFault(await vmm.call("PUT", "/actions", START));
  assert.equal(await vmm.state(), "Not started");
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", START));
  await vmm.console.waitForText("ready\n");
});

test("a file that is no kernel is refused at the start, and the VMM lives on", async () => {
  await using vmm = await Vmm.start();
  const kernel_image_path = vmm.dir.file("no-kernel");
  writeFileSync(kernel_image_path, "this is not a kernel\n".repeat(500));
  expectDone(await vmm.call("PUT", "/boot-source", { kernel_image_path }));
  expectFault(await vmm.call("PUT", "/actions", START));
  assert.equal(await vmm.state(), "Not started");
});

test("a running machine keeps its boot source", async () => {
  await using vmm = await Vmm.boot("idle");
  expectFault(await vmm.call("PUT", "/boot-source", { kernel_image_path: tinyGuest() }));
});
