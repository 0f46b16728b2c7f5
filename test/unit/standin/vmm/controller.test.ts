import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import type { Method } from "../../../../src/standin/vmm/http-connection.ts";
import { Controller } from "../../../../src/standin/vmm/controller.ts";
import { Logger } from "../../../../src/standin/vmm/logger.ts";
import { route } from "../../../../src/standin/vmm/routes.ts";

let dir = "";
before(() => {
  dir = mkdtempSync(join(tmpdir(), "controller-"));
  writeFileSync(join(dir, "disk"), "x".repeat(512));
});
after(() => rmSync(dir, { recursive: true }));

/** A VMM that has not booted: what can be told of its states without a guest. */
function idle() {
  const logger = new Logger();
  logger.update({ log_path: null, level: "off", show_level: null, show_log_origin: null });
  const controller = new Controller({ id: "c", logger, mmdsLimit: 1000, accelerator: "tcg" });
  const ask = async (method: Method, path: string, body?: object): Promise<unknown> => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return await controller.handle(route({ method, path, body: text }));
  };
  return { controller, ask };
}

function drive(id: string, isRoot: boolean) {
  return { drive_id: id, is_root_device: isRoot, path_on_host: join(dir, "disk") };
}

const LOAD = { snapshot_path: "/nowhere", mem_backend: { backend_type: "File", backend_path: "/nowhere" } };

test("what only a running guest can do is refused before the boot", async () => {
  const { ask } = idle();
  const message = "The requested operation is not supported before starting the microVM.";
  for (const [method, path, body] of [
    ["PATCH", "/vm", { state: "Paused" }],
    ["PATCH", "/vm", { state: "Resumed" }],
    ["PUT", "/actions", { action_type: "SendCtrlAltDel" }],
    ["PUT", "/actions", { action_type: "FlushMetrics" }],
    ["PUT", "/snapshot/create", { snapshot_path: "a", mem_file_path: "b" }],
    ["PATCH", "/balloon", { amount_mib: 1 }],
    ["DELETE", "/drives/a", undefined],
  ] as const) {
    await assert.rejects(ask(method, path, body), { name: "Fault", message }, `${method} ${path}`);
  }
});

test("the root drive comes first whenever it was added, and a second is refused", async () => {
  const { controller, ask } = idle();
  await ask("PUT", "/drives/seed", drive("seed", false));
  await ask("PUT", "/drives/root", drive("root", true));
  await ask("PUT", "/drives/data", drive("data", false));
  const ids = () => controller.resources.drives.map((entry) => entry.drive_id);
  assert.deepEqual(ids(), ["root", "seed", "data"]);
  await assert.rejects(ask("PUT", "/drives/other", drive("other", true)), {
    message: "Drive config error: A root block device already exists!",
  });
  await ask("PUT", "/drives/root", drive("root", true));
  assert.deepEqual(ids(), ["root", "seed", "data"]);
});

test("a drive that becomes the root changes places with the first", async () => {
  const { controller, ask } = idle();
  for (const id of ["a", "b"]) await ask("PUT", `/drives/${id}`, drive(id, false));
  await ask("PUT", "/drives/b", drive("b", true));
  assert.deepEqual(
    controller.resources.drives.map((entry) => entry.drive_id),
    ["b", "a"],
  );
});

test("a refused change of the machine leaves it as it was", async () => {
  const { ask } = idle();
  await ask("PUT", "/machine-config", { vcpu_count: 2, mem_size_mib: 64 });
  for (const change of [
    { vcpu_count: 0 },
    { vcpu_count: 33 },
    { mem_size_mib: 0 },
    { vcpu_count: 3, smt: true },
  ]) {
    await assert.rejects(ask("PATCH", "/machine-config", change), /^Fault: Machine config error: /);
  }
  assert.deepEqual(await ask("GET", "/machine-config"), {
    vcpu_count: 2,
    mem_size_mib: 64,
    smt: false,
    track_dirty_pages: false,
    huge_pages: "None",
  });
});

test("a snapshot can't be loaded once anything of a boot was touched, even in vain", async () => {
  const { ask } = idle();
  await assert.rejects(ask("PUT", "/boot-source", { kernel_image_path: "/nowhere" }));
  await assert.rejects(ask("PUT", "/snapshot/load", LOAD), /not allowed after configuring boot-specific/);
});

test("serial and metadata may be set before a load, and a load that fails is the end", async () => {
  const { controller, ask } = idle();
  await ask("PUT", "/serial", { serial_out_path: "/x" });
  await ask("PUT", "/mmds", { a: 1 });
  await assert.rejects(ask("PUT", "/snapshot/load", LOAD), {
    message:
      "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to open snapshot file: No such file or directory (os error 2)",
  });
  assert.deepEqual(await controller.finished, { kind: "load-failed" });
});

test("a start without a kernel, or with something that is none, is refused and can be made good", async () => {
  const { ask } = idle();
  const start = async () => await ask("PUT", "/actions", { action_type: "InstanceStart" });
  await assert.rejects(start(), /Cannot start microvm without kernel configuration/);
  await ask("PUT", "/boot-source", { kernel_image_path: join(dir, "disk") });
  await assert.rejects(start(), /Invalid bzImage/);
  assert.deepEqual(await ask("GET", "/"), {
    id: "c",
    state: "Not started",
    vmm_version: "1.17.0-qemu",
    app_name: "Firecracker",
  });
});

test("what the stand-in lacks is refused by name", async () => {
  const { ask } = idle();
  await assert.rejects(
    ask("PUT", "/vsock", { guest_cid: 3, uds_path: "v" }),
    /Vsock config error: .*the QEMU stand-in does not have this/,
  );
});
