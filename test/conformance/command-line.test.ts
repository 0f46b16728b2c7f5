import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { expectBody, expectDone, expectFault } from "./support/api.ts";
import { family, isAlive, kill } from "./support/processes.ts";
import { tinyGuest, type TinyGuestMode } from "./support/tiny-guest.ts";
import { runVmm, Vmm } from "./support/vmm.ts";
import { waitFor } from "./support/wait.ts";
import { WorkDir } from "./support/workdir.ts";

function configFile(dir: WorkDir, mode: TinyGuestMode, more: Record<string, unknown> = {}): string {
  const path = dir.file("config.json");
  const config = {
    "boot-source": { kernel_image_path: tinyGuest(), boot_args: `tiny=${mode}` },
    drives: [],
    "machine-config": { vcpu_count: 1, mem_size_mib: 160 },
    ...more,
  };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

describe("a bad command line ends with 153", () => {
  const bad: [string, string[]][] = [
    ["an unknown flag", ["--turbo"]],
    ["a word that is no flag", ["start"]],
    ["a flag without its value", ["--id"]],
    ["a flag given twice", ["--id", "a", "--id", "b"]],
    ["--no-api without --config-file", ["--no-api"]],
  ];
  for (const [name, args] of bad) {
    test(name, async () => {
      const { code, signal } = await runVmm(args);
      assert.deepEqual({ code, signal }, { code: 153, signal: null });
    });
  }
});

test("an unknown log level ends with 152", async () => {
  assert.equal((await runVmm(["--level", "chatty", "--no-api", "--config-file", "/nowhere"])).code, 152);
});

test("a log that cannot be opened ends with 1", async () => {
  using dir = new WorkDir();
  const { code } = await runVmm(["--api-sock", dir.file("s"), "--log-path", "/nowhere/log"]);
  assert.equal(code, 1);
});

describe("what Firecracker takes for a bug of its caller does not end with 0", () => {
  const bad: [string, (dir: WorkDir) => string[]][] = [
    ["an id with an underscore", (dir) => ["--api-sock", dir.file("s"), "--id", "a_b"]],
    ["an id that is too long", (dir) => ["--api-sock", dir.file("s"), "--id", "a".repeat(65)]],
    ["a config file that is not there", (dir) => ["--api-sock", dir.file("s"), "--config-file", "/nowhere"]],
    [
      "a limit that is no number",
      (dir) => ["--api-sock", dir.file("s"), "--http-api-max-payload-size", "big"],
    ],
  ];
  for (const [name, args] of bad) {
    test(name, async () => {
      using dir = new WorkDir();
      const { code } = await runVmm(args(dir));
      assert.notEqual(code, 0);
    });
  }
});

test("--version and --help end with 0, whatever else is given", async () => {
  assert.equal((await runVmm(["--version", "--turbo"])).code, 0);
  const help = await runVmm(["--help"]);
  assert.equal(help.code, 0);
  for (const flag of [
    "--api-sock",
    "--config-file",
    "--no-api",
    "--log-path",
    "--http-api-max-payload-size",
  ]) {
    assert.ok(help.output.includes(flag), `${flag} in the help`);
  }
});

test("a path that exists is not taken as a socket", async () => {
  using dir = new WorkDir();
  writeFileSync(dir.file("s"), "mine");
  assert.equal((await runVmm(["--api-sock", dir.file("s")])).code, 1);
  assert.equal(readFileSync(dir.file("s"), "utf8"), "mine");
});

test("the socket outlives the VMM and is in the way of the next", async () => {
  using dir = new WorkDir();
  {
    await using _first = await Vmm.start({ dir, socketName: "s" });
  }
  assert.ok(existsSync(dir.file("s.sock")));
  assert.equal((await runVmm(["--api-sock", dir.file("s.sock")])).code, 1);
});

test("--config-file boots the guest and the API tells what it boots", async () => {
  using dir = new WorkDir();
  // The log would go to stdout too and fall between the guest's characters.
  const log = ["--log-path", dir.file("log")];
  const args = ["--config-file", configFile(dir, "idle"), "--id", "from-file", ...log];
  await using vmm = await Vmm.start({ args });
  const { id, state } = expectBody(await vmm.call("GET", "/"));
  assert.deepEqual({ id, state }, { id: "from-file", state: "Running" });
  assert.equal(expectBody(await vmm.call("GET", "/machine-config"))["mem_size_mib"], 160);
  await waitFor(
    () => `the guest on stdout: ${vmm.output}`,
    () => vmm.output.includes("ready\n"),
  );
});

test("--no-api boots the guest without a socket, and its reset ends the VMM with 0", async () => {
  using dir = new WorkDir();
  const socket = dir.file("s");
  const log = ["--log-path", dir.file("log")];
  const args = ["--no-api", "--api-sock", socket, "--config-file", configFile(dir, "reset"), ...log];
  const { code, output } = await runVmm(args);
  assert.match(output, /tiny-guest up\n/);
  assert.equal(code, 0);
  assert.ok(!existsSync(socket));
});

describe("a bad config file ends with 1", () => {
  const bad: [string, (dir: WorkDir) => void][] = [
    ["broken JSON", (dir) => writeFileSync(dir.file("config.json"), "{")],
    ["an unknown field", (dir) => configFile(dir, "idle", { "machine-config": { vcpus: 1 } })],
    ["no boot source", (dir) => configFile(dir, "idle", { "boot-source": undefined })],
    ["no drives", (dir) => configFile(dir, "idle", { drives: undefined })],
    [
      "a kernel that is not there",
      (dir) => configFile(dir, "idle", { "boot-source": { kernel_image_path: "/nowhere/vmlinux" } }),
    ],
    [
      "a kernel that is none",
      (dir) => {
        writeFileSync(dir.file("kernel"), "this is not a kernel\n".repeat(500));
        configFile(dir, "idle", { "boot-source": { kernel_image_path: dir.file("kernel") } });
      },
    ],
  ];
  for (const [name, write] of bad) {
    for (const how of ["with an API", "without"]) {
      test(`${name}, ${how}`, async () => {
        using dir = new WorkDir();
        write(dir);
        const api = how === "without" ? ["--no-api"] : ["--api-sock", dir.file("s")];
        assert.equal((await runVmm([...api, "--config-file", dir.file("config.json")])).code, 1);
      });
    }
  }
});

test("the log's flags are obeyed", async () => {
  using dir = new WorkDir();
  const log = dir.file("log");
  const args = ["--log-path", log, "--level", "Info", "--show-level", "--show-log-origin", "--id", "logs-1"];
  await using vmm = await Vmm.start({ args });
  await vmm.call("GET", "/version");
  const line = await waitFor("a line in the log", () =>
    readFileSync(log, "utf8")
      .split("\n")
      .find((one) => one.includes("INFO")),
  );
  // Time, then [id:thread:level:file:line], then the words.
  assert.match(line, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[logs-1:[^:\]]+:INFO:[^:\]]+:\d+\] ./);
});

describe("the log's last line tells how the VMM ended, which is all that is left of a daemon", () => {
  const words: [string, (vmm: Vmm) => Promise<unknown>, RegExp][] = [
    [
      "by the guest's reset",
      async (vmm) => {
        await vmm.configureTinyGuest("reset");
        expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
      },
      /Firecracker exiting successfully\. exit_code=0$/,
    ],
    [
      "by a failed load",
      async (vmm) => {
        const mem_backend = { backend_type: "File", backend_path: "/nowhere/memory" };
        expectFault(
          await vmm.call("PUT", "/snapshot/load", { snapshot_path: "/nowhere/state", mem_backend }),
        );
      },
      /Firecracker exiting with error\. exit_code=1$/,
    ],
  ];
  for (const [name, end, last] of words) {
    test(name, async () => {
      using dir = new WorkDir();
      const log = dir.file("log");
      await using vmm = await Vmm.start({ args: ["--log-path", log, "--level", "Info"] });
      await end(vmm);
      await vmm.exit();
      assert.match(readFileSync(log, "utf8").trimEnd().split("\n").at(-1) ?? "", last);
    });
  }
});

test("--metrics-path takes the metrics", async () => {
  using dir = new WorkDir();
  const path = dir.file("metrics");
  writeFileSync(path, "");
  await using vmm = await Vmm.boot("idle", { args: ["--metrics-path", path] });
  await vmm.call("PUT", "/actions", { action_type: "FlushMetrics" });
  const text = await waitFor("a line of metrics", () => readFileSync(path, "utf8"));
  assert.doesNotThrow(() => JSON.parse(text.split("\n")[0] ?? "") as unknown);
});

test("the flags that the jailer adds are taken", async () => {
  const args = ["--start-time-us", "1", "--start-time-cpu-us", "1", "--parent-cpu-time-us", "1"];
  await using vmm = await Vmm.start({ args });
  expectBody(await vmm.call("GET", "/"));
});

describe("signals end the VMM and everything it started", () => {
  for (const signal of ["SIGTERM", "SIGINT", "SIGKILL", "SIGHUP"] as const) {
    test(signal, async () => {
      await using vmm = await Vmm.boot("count");
      const all = family(vmm.pid);
      kill(vmm.pid, signal);
      const exit = await vmm.exit();
      assert.deepEqual(exit, signal === "SIGHUP" ? { code: 156, signal: null } : { code: null, signal });
      await waitFor("the end of all of it", () => !all.some(isAlive), 5_000);
    });
  }
});
