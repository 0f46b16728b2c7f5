import assert from "node:assert/strict";
import { test } from "node:test";
import { expectBody } from "./support/api.ts";
import { runVmm, Vmm } from "./support/vmm.ts";

test("GET /version and --version tell the same version", async () => {
  await using vmm = await Vmm.start();
  const body = expectBody(await vmm.call("GET", "/version"));
  assert.deepEqual(Object.keys(body), ["firecracker_version"]);
  const version = String(body["firecracker_version"]);
  assert.match(version, /^\d+\.\d+\.\d+/);
  const printed = await runVmm(["--version"]);
  assert.equal(printed.code, 0);
  assert.ok(printed.output.startsWith(`Firecracker v${version}\n`), printed.output);
});

test("GET / tells who is asked before anything is configured", async () => {
  await using vmm = await Vmm.start({ args: ["--id", "some-Machine-7"] });
  const version = expectBody(await vmm.call("GET", "/version"))["firecracker_version"];
  assert.deepEqual(expectBody(await vmm.call("GET", "/")), {
    id: "some-Machine-7",
    state: "Not started",
    vmm_version: version,
    app_name: "Firecracker",
  });
});

test("a VMM without --id calls itself anonymous-instance", async () => {
  await using vmm = await Vmm.start();
  assert.equal(expectBody(await vmm.call("GET", "/"))["id"], "anonymous-instance");
});
