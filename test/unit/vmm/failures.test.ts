import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { AppError, ErrorCode } from "../../../src/contract/errors.ts";
import { run } from "../../../src/system/run.ts";
import { FirecrackerApi } from "../../../src/vmm/api.ts";
import { bootGuest } from "../../../src/vmm/boot.ts";
import { detectCgroups } from "../../../src/vmm/cgroups.ts";
import { ApiSocket } from "../../../src/vmm/socket.ts";
import { HARDWARE, stubRoom, VMM_UID } from "../../support/stub-vmm/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: a jail is made of namespaces";

/** What a failing launch or boot must throw. */
interface Failure {
  readonly code: ErrorCode;
  readonly message: RegExp;
  readonly details?: object;
}

describe("a launch that fails leaves no jail, process or cgroup", { skip }, () => {
  const jailer: readonly (Failure & { word: string })[] = [
    {
      word: "fail",
      code: "vmm_failed",
      message: /^The jailer failed: the stub was told to fail/,
      details: { jailer_stderr: "the stub was told to fail", exit_code: 1 },
    },
    { word: "hang", code: "vmm_timeout", message: /within 700 ms/ },
    { word: "wrong-gid", code: "vmm_failed", message: /does not run as 200777:200777/ },
    { word: "other-pid", code: "vmm_failed", message: /process 1 does not have the jail as its root/ },
    { word: "linked-pid", code: "vmm_failed", message: /ELOOP/ },
    { word: "no-netns", code: "vmm_failed", message: /not in the network namespace/ },
  ];
  for (const { word, ...failure } of jailer)
    test(`when the jailer is told ${word}`, async () => {
      await using room = await stubRoom({ launchTimeoutMs: 700 });
      await room.pair.tellJailer(word);
      await assert.rejects(room.vmms.launch(await room.spec()), failure);
      assert.deepEqual(await room.leftovers(), []);
    });

  const vmm: readonly (Failure & { rules: string })[] = [
    {
      rules: "start exit",
      code: "vmm_failed",
      message: /ended before its API was there/,
      details: { vmm_log: "the stub was told to exit at its start" },
    },
    { rules: "start hang", code: "vmm_timeout", message: /was not there within 700 ms/ },
    {
      rules: "GET / hang",
      code: "vmm_timeout",
      message: /was not there within 700 ms/,
      details: { vmm_log: "GET /" },
    },
    {
      rules: "GET / refuse",
      code: "vmm_failed",
      message: /refused GET \/: The stub was told to refuse this/,
    },
    { rules: "GET / chatter", code: "vmm_failed", message: /not JSON/ },
    { rules: "GET / break", code: "vmm_failed", message: /broke off GET \// },
  ];
  for (const { rules, ...failure } of vmm)
    test(`when the VMM is told ${rules}`, async () => {
      await using room = await stubRoom({ launchTimeoutMs: 700 });
      await assert.rejects(room.vmms.launch(await room.spec(`${rules}\n`)), failure);
      assert.deepEqual(await room.leftovers(), []);
    });

  test("when it is aborted half-way, with the reason", async () => {
    await using room = await stubRoom();
    const reason = new Error("enough");
    const controller = new AbortController();
    const launching = room.vmms.launch(await room.spec("start hang\n"), controller.signal);
    setTimeout(() => controller.abort(reason), 100);
    await assert.rejects(launching, reason);
    assert.deepEqual(await room.leftovers(), []);
  });

  test("when a file is missing, or its name in the jail is the jailer's", async () => {
    await using room = await stubRoom();
    const spec = await room.spec();
    const kernel = join(room.rootDir, "missing");
    const missing = { ...spec, files: [...spec.files, { source: kernel, path: "/initrd" }] };
    await assert.rejects(room.vmms.launch(missing), { code: "vmm_failed", message: /ENOENT/ });
    for (const path of [
      "/run",
      "/dev",
      "/stub-firecracker",
      "/stub-firecracker.pid",
      "/a/b",
      "/..",
      "x",
      "/kernel",
    ]) {
      const files = [...spec.files, { source: spec.files[0]?.source ?? "", path }];
      await assert.rejects(room.vmms.launch({ ...spec, files }), { code: "internal" });
    }
    assert.deepEqual(await room.leftovers(), []);
  });
});

describe("a boot that fails says why, and the release leaves nothing", { skip }, () => {
  const cases: readonly (Failure & { rules: string })[] = [
    {
      rules: "PUT /drives/rootfs refuse",
      code: "vmm_failed",
      message: /^The VMM refused PUT \/drives\/rootfs: The stub was told to refuse this\.$/,
    },
    // Firecracker's HTTP layer answers with a raw newline inside a string; control characters are not passed on.
    {
      rules: "PUT /serial garbage",
      code: "vmm_failed",
      message: /^The VMM refused PUT \/serial: \{ "error": "Invalid\nbody\uFFFD\[31m" \}$/,
    },
    { rules: "PUT /actions break", code: "vmm_failed", message: /^The VMM broke off PUT \/actions/ },
    { rules: "PUT /actions exit", code: "vmm_failed", message: /^The VMM broke off PUT \/actions/ },
    { rules: "PUT /entropy chatter", code: "vmm_failed", message: /^The VMM answered PUT \/entropy/ },
  ];
  for (const { rules, ...failure } of cases)
    test(`when the VMM is told ${rules}`, async () => {
      await using room = await stubRoom();
      const spec = await room.spec(`${rules}\n`);
      const vmm = await room.vmms.launch(spec);
      await assert.rejects(vmm.boot(HARDWARE), (error: Error & { details?: Record<string, unknown> }) => {
        assert.match(
          String(error.details?.["vmm_log"]),
          /PUT \/serial/,
          "the log's tail is among the details",
        );
        assert.match(error.message, failure.message);
        return "code" in error && error.code === failure.code;
      });
      await room.vmms.release(vmm.ref);
      assert.deepEqual(await room.leftovers(), []);
    });

  test("when it is aborted, with the reason", async () => {
    await using room = await stubRoom();
    const vmm = await room.vmms.launch(await room.spec("PUT /actions hang\n"));
    const reason = new Error("enough");
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(vmm.boot(HARDWARE, controller.signal), reason);
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.leftovers(), []);
  });
});

test("a start that an older VMM refuses says which kernels it takes, a newer one's does not", {
  skip,
}, async () => {
  await using room = await stubRoom();
  const spec = await room.spec("PUT /actions refuse\n");
  const vmm = await room.vmms.launch(spec);
  const root = join(room.rootDir, "jails", "stub-firecracker", spec.jail_id, "root");
  using socket = ApiSocket.open(root, VMM_UID);
  const api = new FirecrackerApi(socket);
  const noteOf = async (minor: number): Promise<unknown> =>
    await bootGuest(api, { major: 1, minor, text: `1.${minor}.0` }, HARDWARE).then(
      () => assert.fail("it started"),
      (error: AppError) => error.details?.["note"],
    );
  assert.match(
    String(await noteOf(16)),
    /^Firecracker 1\.16\.0 boots only .* ELF files; a bzImage needs 1\.17/,
  );
  assert.equal(await noteOf(17), undefined);
  await api.close();
  await room.vmms.release(vmm.ref);
});

describe("a VMM", { skip }, () => {
  test("lives in cgroups of its own, with the limits that were asked for", async () => {
    await using room = await stubRoom();
    const vmm = await room.vmms.launch(await room.spec());
    const { version, mounts } = await detectCgroups(await readFile("/proc/mounts", "utf8"));
    const groups = await readFile(`/proc/${vmm.ref.process.pid}/cgroup`, "utf8");
    const limit = async (controller: "memory" | "pids" | "cpu", file: string): Promise<string> => {
      const line =
        version === 2 ? /^0::(.*)$/m : new RegExp(`^\\d+:(?:.*,)?${controller}(?:,.*)?:(.*)$`, "m");
      const path = line.exec(groups)?.[1] ?? "";
      assert.ok(path.endsWith(`/${vmm.ref.jail_id}`), `${controller}: ${path}`);
      return (await readFile(join(mounts.get(controller) ?? "", path, file), "utf8")).trim();
    };
    assert.equal(await limit("pids", "pids.max"), "16");
    assert.equal(await limit("memory", version === 2 ? "memory.max" : "memory.limit_in_bytes"), "67108864");
    const quota = await limit("cpu", version === 2 ? "cpu.max" : "cpu.cfs_quota_us");
    assert.equal(quota, version === 2 ? "150000 100000" : "150000");
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.leftovers(), []);
  });

  test("whose API listens a moment after its socket appears is waited for", async () => {
    await using room = await stubRoom();
    const vmm = await room.vmms.launch(await room.spec("start late\n"));
    await room.vmms.release(vmm.ref);
  });

  for (const rules of ["watch drop", "watch chatter"])
    test(`that is told ${rules} is not taken for dead, and its death is still told`, async () => {
      await using room = await stubRoom();
      const vmm = await room.vmms.launch(await room.spec(`${rules}\n`));
      await vmm.boot(HARDWARE);
      await sleep(100);
      assert.equal(vmm.gone.aborted, false);
      process.kill(vmm.ref.process.pid, "SIGKILL");
      assert.equal(await vmm.waitGone(6000), true);
      assert.equal(vmm.gone.aborted, true);
      await room.vmms.release(vmm.ref);
    });

  test("whose jail was made for another VMM is found and released all the same", async () => {
    await using room = await stubRoom();
    const vmm = await room.vmms.launch(await room.spec());
    await vmm.detach();
    const folder = join(room.rootDir, "jails", "stub-firecracker");
    await rename(folder, join(dirname(folder), "another"));
    assert.deepEqual(await room.vmms.listJails(), [vmm.ref.jail_id]);
    await room.vmms.release({ ...vmm.ref });
    assert.equal(await vmm.waitGone(0), true);
    assert.deepEqual(await room.leftovers(), []);
  });

  test("is not released by an id that is no plain name", async () => {
    await using room = await stubRoom();
    const vmm = await room.vmms.launch(await room.spec());
    for (const jail_id of ["", ".", "..", "../stub-firecracker", `../stub-firecracker/${vmm.ref.jail_id}`])
      await assert.rejects(room.vmms.release({ ...vmm.ref, jail_id }), { code: "internal" });
    assert.equal(vmm.gone.aborted, false);
    await room.vmms.release(vmm.ref);
  });

  test("with a mount in its jail is not deleted through it", async () => {
    await using room = await stubRoom();
    const outside = await mkdtemp(join(tmpdir(), "outside-"));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(async () => await rm(outside, { recursive: true }));
    await writeFile(join(outside, "precious"), "");
    const vmm = await room.vmms.launch(await room.spec());
    const root = join(room.rootDir, "jails", "stub-firecracker", vmm.ref.jail_id, "root");
    await mkdir(join(root, "mnt"));
    await run(["mount", "--bind", outside, join(root, "mnt")]);
    try {
      await assert.rejects(room.vmms.release(vmm.ref), /something is mounted on/);
      assert.deepEqual(await room.vmms.listJails(), [vmm.ref.jail_id]);
    } finally {
      await run(["umount", join(root, "mnt")]);
    }
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.leftovers(), []);
  });

  test("that puts a link in its socket's place is not followed by a daemon that starts again", async () => {
    await using room = await stubRoom();
    const elsewhere = join(room.rootDir, "elsewhere.sock");
    const server = createServer().listen(elsewhere);
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => void server.close());
    let connections = 0;
    server.on("connection", () => (connections += 1));
    const vmm = await room.vmms.launch(await room.spec());
    await vmm.detach();
    const socket = join(
      room.rootDir,
      "jails",
      "stub-firecracker",
      vmm.ref.jail_id,
      "root",
      "run",
      "api.sock",
    );
    await rm(socket);
    await symlink(elsewhere, socket);
    assert.equal(await (await room.restart()).adopt(vmm.ref), undefined);
    await sleep(20);
    assert.equal(connections, 0);
    await room.vmms.release(vmm.ref);
  });

  test("with a second process in its jail is released with it, and nobody else is touched", async () => {
    await using room = await stubRoom();
    const [first, second] = await Promise.all([
      room.vmms.launch(await room.spec()),
      room.vmms.launch(await room.spec()),
    ]);
    const root = join(room.rootDir, "jails", "stub-firecracker", first.ref.jail_id, "root");
    const intruder = spawn("chroot", [root, "/stub-firecracker", "--api-sock", "/run/other.sock"]);
    const ended = once(intruder, "exit", { signal: AbortSignal.timeout(5000) });
    const there = (): boolean => existsSync(join(root, "run", "other.sock"));
    for (let looks = 0; !there() && looks < 200; looks += 1) await sleep(5);
    assert.ok(there());
    await room.vmms.release({ jail_id: first.ref.jail_id, uid: VMM_UID, gid: VMM_UID, netns_path: "" });
    assert.equal(await first.waitGone(0), true);
    assert.deepEqual(await ended, [null, "SIGKILL"]);
    await second.boot(HARDWARE);
    await room.vmms.release(second.ref);
    assert.deepEqual(await room.leftovers(), []);
  });
});
