import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import type { AppError } from "../../../src/contract/errors.ts";
import { FirecrackerApi } from "../../../src/vmm/api.ts";
import { lend } from "../../../src/vmm/lending.ts";
import { saveGuest, saveTimeoutMs } from "../../../src/vmm/save.ts";
import { ApiSocket } from "../../../src/vmm/socket.ts";
import type { LaunchSpec, Vmm } from "../../../src/vmm/types.ts";
import { HARDWARE, type StubRoom, stubRoom, thawing, VMM_UID } from "../../support/stub-vmm/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: a jail is made of namespaces";
const MIB = 1024 * 1024;

function rootOf(room: StubRoom, { jail_id }: { readonly jail_id: string }): string {
  return join(room.rootDir, "jails", "stub-firecracker", jail_id, "root");
}

/** A guest that stands still, in a VMM that misbehaves as `rules` say. */
async function paused(room: StubRoom, rules = ""): Promise<{ vmm: Vmm; root: string; spec: LaunchSpec }> {
  const spec = await room.spec(rules);
  const vmm = await room.vmms.launch(spec);
  await vmm.boot(HARDWARE);
  await vmm.pause();
  return { vmm, root: rootOf(room, spec), spec };
}

async function lentIn(root: string): Promise<string[]> {
  return (await readdir(root)).filter((name) => name.startsWith("save-"));
}

describe("a save", { skip }, () => {
  test("fills both files, a diff only what changed, and leaves no name in the jail", async () => {
    await using room = await stubRoom();
    const { vmm, root } = await paused(room);
    const full = await room.target();
    await vmm.save(full, HARDWARE.memory_mib);
    assert.deepEqual(await lentIn(root), []);
    assert.equal((await stat(full.memory)).size, HARDWARE.memory_mib * MIB);
    assert.equal((await stat(full.memory)).nlink, 1);
    assert.ok((await stat(full.state)).size > 0);
    const diff = await room.target(full);
    await vmm.save(diff, HARDWARE.memory_mib);
    const words = async (path: string): Promise<string[]> => {
      const memory = await readFile(path);
      return [0, 4096].map((at) => memory.toString("latin1", at, at + 4));
    };
    assert.deepEqual(await words(full.memory), ["full", "full"]);
    assert.deepEqual(await words(diff.memory), ["full", "diff"]);
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.leftovers(), []);
  });

  const failing = [
    { rules: "refuse", code: "vmm_failed", message: /^The VMM refused PUT \/snapshot\/create: The stub/ },
    { rules: "full", code: "disk_full", message: /no room left for the guest's memory/ },
    { rules: "break", code: "vmm_failed", message: /^The VMM broke off PUT \/snapshot\/create/ },
    { rules: "exit", code: "vmm_failed", message: /^The VMM broke off PUT \/snapshot\/create/ },
  ];
  for (const { rules, ...failure } of failing)
    test(`that the VMM is told to ${rules} fails as such and leaves no name in the jail`, async () => {
      await using room = await stubRoom();
      const { vmm, root } = await paused(room, `PUT /snapshot/create ${rules}\n`);
      await assert.rejects(vmm.save(await room.target(), HARDWARE.memory_mib), (error: AppError) => {
        assert.match(error.message, failure.message);
        if (rules !== "full") assert.match(String(error.details?.["vmm_log"]), /PUT \/snapshot\/create/);
        return error.code === failure.code;
      });
      assert.deepEqual(await lentIn(root), []);
      if (rules !== "exit") await vmm.resume();
      await room.vmms.release(vmm.ref);
    });

  test("that has no end is given up, and leaves no name in the jail", async () => {
    await using room = await stubRoom();
    const { vmm, root } = await paused(room, "PUT /snapshot/create hang\n");
    using socket = ApiSocket.open(root, VMM_UID);
    const api = new FirecrackerApi(socket);
    await assert.rejects(saveGuest(api, root, await room.target(), 100), { code: "vmm_timeout" });
    await api.close();
    assert.deepEqual(await lentIn(root), []);
    await room.vmms.release(vmm.ref);
  });

  test("may take the longer the more memory there is", () => {
    assert.equal(saveTimeoutMs(64), 31_000);
    assert.equal(saveTimeoutMs(65), 32_000);
    assert.equal(saveTimeoutMs(8192), 158_000);
  });

  const traps = {
    "a link": async (path: string) => await symlink("../../../../precious", path),
    "a folder": async (path: string) => await mkdir(path),
    "a file": async (path: string) => await writeFile(path, "theirs"),
  };
  for (const name of ["save-state", "save-memory"]) {
    for (const [kind, set] of Object.entries(traps).filter(([each]) => each !== "a folder"))
      test(`whose ${name} is ${kind} already puts its own in the place and follows nothing`, async () => {
        await using room = await stubRoom();
        const precious = join(room.rootDir, "precious");
        await writeFile(precious, "precious");
        const { vmm, root } = await paused(room);
        await set(join(root, name));
        await vmm.save(await room.target(), HARDWARE.memory_mib);
        assert.deepEqual(await lentIn(root), []);
        await vmm.resume();
        await room.vmms.release(vmm.ref);
        assert.equal(await readFile(precious, "utf8"), "precious");
      });
    for (const [kind, set] of Object.entries(traps).filter(([each]) => each === "a folder"))
      test(`whose ${name} is ${kind} already asks nothing of the VMM and follows nothing`, async () => {
        await using room = await stubRoom();
        const precious = join(room.rootDir, "precious");
        await writeFile(precious, "precious");
        const { vmm, root, spec } = await paused(room);
        await set(join(root, name));
        const target = await room.target();
        await assert.rejects(vmm.save(target, HARDWARE.memory_mib), {
          code: "vmm_failed",
          message: `Something lies in the way at /${name} in the VMM's jail.`,
        });
        assert.doesNotMatch(await room.logOf(spec), /snapshot/);
        assert.deepEqual(await lentIn(root), [name], "what is theirs stays, what is ours is gone");
        assert.equal((await stat(target.state)).nlink, 1);
        assert.equal(await readFile(precious, "utf8"), "precious");
        await vmm.resume();
        await room.vmms.release(vmm.ref);
        assert.equal(await readFile(precious, "utf8"), "precious");
      });
  }

  test("that a killed daemon left half-done is taken back when its VMM is adopted", async () => {
    await using room = await stubRoom();
    const { vmm, root } = await paused(room);
    const target = await room.target();
    await lend(root, [{ source: target.memory, path: "/save-memory" }]);
    await vmm.detach();
    const adopted = await (await room.restart()).adopt(vmm.ref);
    assert.ok(adopted);
    assert.deepEqual(await lentIn(root), []);
    await adopted.save(target, HARDWARE.memory_mib);
    await room.vmms.release(adopted.ref);
  });
});

describe("a file that is lent", () => {
  test("goes from the jail at the end whatever became of its name, and what it led to stays", async () => {
    const folder = await mkdtemp(join(tmpdir(), "lend-"));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(async () => await rm(folder, { recursive: true }));
    const source = join(folder, "source");
    const root = join(folder, "root");
    await writeFile(source, "ours");
    await mkdir(root);
    const files = ["/a", "/b", "/c"].map((path) => ({ source, path }));
    {
      await using _lent = await lend(root, files);
      for (const name of ["a", "b", "c"]) await rm(join(root, name));
      await symlink(source, join(root, "b"));
      await mkdir(join(root, "c"));
    }
    assert.deepEqual(await readdir(root), ["c"], "a folder is left for the end of the jail");
    assert.equal(await readFile(source, "utf8"), "ours");
  });
});

describe("a load that fails says why", { skip }, () => {
  test("and carries the log of a VMM that ended", async () => {
    await using room = await stubRoom();
    const { spec, frozen } = thawing(await room.spec(), await room.target());
    const vmm = await room.vmms.launch(spec);
    await assert.rejects(vmm.load(frozen), (error: AppError) => {
      assert.match(error.message, /^The VMM refused PUT \/snapshot\/load: Load snapshot error/);
      assert.match(String(error.details?.["vmm_log"]), /PUT \/snapshot\/load/);
      return error.code === "vmm_failed";
    });
    assert.equal(await vmm.waitGone(2000), true);
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.leftovers(), []);
  });

  for (const rules of ["PUT /serial refuse", "PUT /mmds refuse", "PUT /snapshot/load break"])
    test(`when the VMM is told ${rules}`, async () => {
      await using room = await stubRoom();
      const { spec, frozen } = thawing(await room.spec(`${rules}\n`), await room.target());
      const vmm = await room.vmms.launch(spec);
      await assert.rejects(vmm.load(frozen), { code: "vmm_failed" });
      await room.vmms.release(vmm.ref);
    });

  test("when it is aborted, with the reason", async () => {
    await using room = await stubRoom();
    const { spec, frozen } = thawing(await room.spec("PUT /snapshot/load hang\n"), await room.target());
    const vmm = await room.vmms.launch(spec);
    const reason = new Error("enough");
    const controller = new AbortController();
    setTimeout(() => controller.abort(reason), 50);
    await assert.rejects(vmm.load(frozen, controller.signal), reason);
    await room.vmms.release(vmm.ref);
    assert.deepEqual(await room.leftovers(), []);
  });
});
