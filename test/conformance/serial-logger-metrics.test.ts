import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectDone, expectFault } from "./support/api.ts";
import { Vmm } from "./support/vmm.ts";
import { waitFor } from "./support/wait.ts";
import { WorkDir } from "./support/workdir.ts";

test("the console goes into the file that is there, from its start, and nowhere else", async () => {
  using dir = new WorkDir();
  // Without the log nothing comes between the characters that would give a leak to stdout away.
  await using vmm = await Vmm.start({ args: ["--log-path", dir.file("log")] });
  writeFileSync(vmm.consolePath, "before\n");
  const { ino } = statSync(vmm.consolePath);
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  await vmm.console.waitForText("ready\n");
  assert.match(vmm.console.text(), /^tiny-guest up\n/);
  assert.equal(statSync(vmm.consolePath).ino, ino);
  assert.doesNotMatch(vmm.output, /tiny-guest up/);
});

test("without PUT /serial the console is the VMM's stdout", async () => {
  using dir = new WorkDir();
  // The log would go to stdout too and fall between the guest's characters.
  await using vmm = await Vmm.start({ args: ["--log-path", dir.file("log")] });
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/serial", {}));
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  await waitFor(
    () => `the guest's words on stdout: ${vmm.output}`,
    () => vmm.output.includes("tiny-guest up\n"),
  );
});

test("a rate limiter for the console is taken", async () => {
  await using vmm = await Vmm.start();
  const rate_limiter = { size: 65_536, refill_time: 1_000 };
  expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath, rate_limiter }));
});

test("the log goes to the file that PUT /logger names", async () => {
  await using vmm = await Vmm.start();
  const log_path = vmm.dir.file("log");
  writeFileSync(log_path, "");
  const logger = { log_path, level: "Info", show_level: true, show_log_origin: false };
  expectDone(await vmm.call("PUT", "/logger", logger));
  await vmm.call("GET", "/version");
  await waitFor("a line with its level in the log", () => /INFO/.test(readFileSync(log_path, "utf8")));
});

for (const level of ["Error", "Warning", "Info", "Debug", "Off", "Trace"]) {
  test(`the log level ${level} is taken`, async () => {
    await using vmm = await Vmm.start();
    expectDone(await vmm.call("PUT", "/logger", { level }));
  });
}

test("FlushMetrics writes one JSON line, to the file that PUT /metrics names", async () => {
  await using vmm = await Vmm.start();
  const metrics_path = vmm.dir.file("metrics");
  writeFileSync(metrics_path, "");
  expectDone(await vmm.call("PUT", "/metrics", { metrics_path }));
  // It can be set up only once.
  expectFault(await vmm.call("PUT", "/metrics", { metrics_path: vmm.dir.file("other") }));
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  expectDone(await vmm.call("PUT", "/actions", { action_type: "FlushMetrics" }));
  const text = await waitFor("a line of metrics", () => readFileSync(metrics_path, "utf8"));
  for (const line of text.trimEnd().split("\n")) {
    const metrics = JSON.parse(line) as Record<string, unknown>;
    assert.equal(typeof metrics["utc_timestamp_ms"], "number");
  }
});

describe("refused", () => {
  const refused: [string, string, unknown][] = [
    ["an unknown field of the console", "/serial", { path: "/tmp/a" }],
    ["a console path that is a number", "/serial", { serial_out_path: 7 }],
    ["an unknown field of the log", "/logger", { file: "/tmp/a" }],
    ["an unknown level", "/logger", { level: "Chatty" }],
    ["a log in a folder that is not there", "/logger", { log_path: "/nowhere/log" }],
    ["no path for the metrics", "/metrics", {}],
    ["metrics in a folder that is not there", "/metrics", { metrics_path: "/nowhere/metrics" }],
  ];
  for (const [name, path, body] of refused) {
    test(name, async () => {
      await using vmm = await Vmm.start();
      expectFault(await vmm.call("PUT", path, body));
      assert.equal(await vmm.state(), "Not started");
    });
  }
});

test("a console in a folder that is not there fails the start, and the VMM lives on", async () => {
  await using vmm = await Vmm.start();
  await vmm.configureTinyGuest("idle");
  expectDone(await vmm.call("PUT", "/serial", { serial_out_path: "/nowhere/console" }));
  expectFault(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
  assert.equal(await vmm.state(), "Not started");
});

test("a running machine keeps its console, log and metrics", async () => {
  await using vmm = await Vmm.boot("idle");
  expectFault(await vmm.call("PUT", "/serial", { serial_out_path: vmm.dir.file("other") }));
  expectFault(await vmm.call("PUT", "/logger", { level: "Debug" }));
  expectFault(await vmm.call("PUT", "/metrics", { metrics_path: vmm.dir.file("metrics") }));
});
