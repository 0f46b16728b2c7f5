import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import { expectBody } from "./support/api.ts";
import { takeSnapshot } from "./support/snapshot.ts";
import { runVmm, Vmm } from "./support/vmm.ts";
import { WorkDir } from "./support/workdir.ts";

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

test("--snapshot-version tells the format on a line of its own, and --describe-snapshot that of a state file", async () => {
  using dir = new WorkDir();
  const { state } = await takeSnapshot(dir);
  const format = /^v\d+\.\d+\.\d+(-\w+)?$/m;
  const printed = await runVmm(["--snapshot-version"]);
  assert.equal(printed.code, 0);
  const [version] = format.exec(printed.output) ?? [];
  assert.ok(version !== undefined, printed.output);
  const described = await runVmm(["--describe-snapshot", state]);
  assert.equal(described.code, 0);
  assert.equal(format.exec(described.output)?.[0], version);
  writeFileSync(state, "nonsense");
  for (const path of [state, "/nowhere"]) {
    const refused = await runVmm(["--describe-snapshot", path]);
    assert.equal(refused.code, 1);
    assert.doesNotMatch(refused.output, format);
  }
});
