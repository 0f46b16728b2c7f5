import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { health, machine, snapshot, storageReport } from "../client/support/samples.ts";
import { always } from "../client/support/socket-server.ts";
import { cli } from "./run.ts";

async function keyFile(content: string): Promise<AsyncDisposable & { readonly path: string }> {
  const folder = await mkdtemp(join(tmpdir(), "computer-cli-"));
  const path = join(folder, "id.pub");
  await writeFile(path, content);
  return { path, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) };
}

describe("computer create", () => {
  it("sends what was asked for, in the contract's units, and shows the machine", async () => {
    await using key = await keyFile("# mine\nssh-ed25519 AAAA me@here\n");
    const { code, out, requests } = await cli(
      (
        `create web --image debian-slim --memory 1GiB --vcpus 2 --disk 2GiB --key ${key.path} ` +
        "--hostname front --ready started --webhook https://hook.example/x --webhook-token t"
      ).split(" "),
      always(201, { machine }),
    );
    assert.equal(code, 0);
    assert.deepEqual(requests[0]?.body, {
      machine_id: "web",
      image: "debian-slim",
      memory_mib: 1024,
      vcpus: 2,
      storage_bytes: 2 * 2 ** 30,
      guest_config: {
        hostname: "front",
        authorized_keys: ["ssh-ed25519 AAAA me@here"],
        login_webhook: { url: "https://hook.example/x", bearer_token: "t" },
      },
      ready: "started",
    });
    assert.match(out, /^address +10\.200\.0\.6$/m);
    assert.match(out, /^size +2 vCPU, 512 MiB, disk 2 GiB$/m);
  });

  it("leaves to the daemon what was not asked for", async () => {
    const { requests } = await cli(["create", "web"], always(201, { machine }));
    assert.deepEqual(requests[0]?.body, { machine_id: "web" });
  });

  it("says so when the machine was there already", async () => {
    const { code, err } = await cli(["create", "web"], always(200, { machine }));
    assert.equal(code, 0);
    assert.match(err, /was there already/);
  });

  it("never sends a private key", async () => {
    await using key = await keyFile("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
    const { code, err, requests } = await cli(["create", "web", "--key", key.path]);
    assert.equal(code, 2);
    assert.match(err, /is a private key/);
    assert.deepEqual(requests, []);
  });

  it("shows the daemon's sentence, its code and the end of the console", async () => {
    const { code, out, err } = await cli(
      ["create", "web"],
      always(504, {
        error: "The guest did not become ready.",
        code: "guest_not_ready",
        details: { ready: "ssh", console_tail: "line one\nKernel panic\n" },
      }),
    );
    assert.equal(code, 1);
    assert.equal(out, "");
    assert.equal(
      err,
      [
        "error: The guest did not become ready. (guest_not_ready)",
        "  ready: ssh",
        "  the guest's console ended with:",
        "    line one",
        "    Kernel panic",
      ].join("\n"),
    );
  });
});

describe("computer", () => {
  it("lists machines in columns", async () => {
    const { out } = await cli(
      ["list"],
      always(200, { machines: [machine, { ...machine, id: "a-longer-id" }] }),
    );
    const [heading, first, second] = out.split("\n");
    assert.match(heading ?? "", /^ID +PHASE +ADDRESS/);
    assert.match(first ?? "", /^web +running +10\.200\.0\.6 +debian-slim +2 +512 MiB +2 GiB +2030-/);
    assert.equal(first?.indexOf("running"), second?.indexOf("running"));
  });

  it("prints the daemon's answer with --json, before or after the command", async () => {
    for (const argv of [
      ["--json", "list"],
      ["list", "--json"],
    ]) {
      const { out } = await cli(argv, always(200, { machines: [machine] }));
      assert.deepEqual(JSON.parse(out), { machines: [machine] });
    }
  });

  it("shows health with its warnings", async () => {
    const { out } = await cli(["health"], always(200, health));
    assert.match(out, /^status +ok$/m);
    assert.match(out, /^vmm +some-vmm 1\.0: it was chosen$/m);
    assert.match(out, /^warning +Disks are copied\.$/m);
  });

  it("stops one machine and deletes several", async () => {
    assert.equal((await cli(["stop", "web"])).requests[0]?.path, "/machines/web/stop");
    const { code, requests } = await cli(["delete", "one", "two"]);
    assert.equal(code, 0);
    assert.deepEqual(
      requests.map(({ method, path }) => `${method} ${path}`),
      ["DELETE /machines/one", "DELETE /machines/two"],
    );
  });

  it("starts, pauses and resumes a machine, and shows it", async () => {
    for (const verb of ["start", "pause", "resume"]) {
      const { code, out, requests } = await cli([verb, "web"], always(200, { machine }));
      assert.deepEqual([code, requests[0]?.method, requests[0]?.path], [0, "POST", `/machines/web/${verb}`]);
      assert.match(out, /^phase +running$/m);
    }
    const paused = { ...machine, paused: true };
    assert.match(
      (await cli(["pause", "web"], always(200, { machine: paused }))).out,
      /^phase +running \(paused\)$/m,
    );
    assert.match(
      (await cli(["list"], always(200, { machines: [paused] }))).out,
      /^web +running \(paused\) /m,
    );
  });

  it("resizes a machine in the contract's units", async () => {
    const { requests } = await cli(
      "resize web --memory 1GiB --vcpus 4 --disk 4GiB".split(" "),
      always(200, { machine }),
    );
    assert.equal(requests[0]?.path, "/machines/web/resize");
    assert.deepEqual(requests[0]?.body, { memory_mib: 1024, vcpus: 4, storage_bytes: 4 * 2 ** 30 });
  });

  it("reports what things take up", async () => {
    const { out } = await cli(["report"], always(200, storageReport));
    assert.match(out, /^free +40 GiB of 100 GiB$/m);
    assert.match(out, /^machine +web +300 MiB +2 GiB$/m);
    assert.match(out, /^snapshot +before +250 MiB +512 MiB$/m);
    assert.match(out, /^images +3 files +200 MiB +600 MiB$/m);
    assert.deepEqual(
      JSON.parse((await cli(["report", "--json"], always(200, storageReport))).out),
      storageReport,
    );
  });

  it("takes, lists, shows, restores and deletes snapshots", async () => {
    const taken = await cli(
      ["snapshot", "web", "before"],
      always(201, { snapshot, artifacts: snapshot.artifacts }),
    );
    assert.deepEqual(taken.requests[0]?.body, { snapshot_id: "before" });
    assert.match(taken.out, /^consistency +synced$/m);
    const listed = await cli(["snapshots", "web"], always(200, { snapshots: [snapshot] }));
    assert.match(listed.out, /^before +web +512 MiB +none +synced/m);
    const shown = await cli(["get-snapshot", "before"], always(200, { snapshot }));
    assert.match(shown.out, /^disk +disk\.ext4 \(512 MiB\)$/m);
    const restored = await cli(
      ["restore", "before", "copy", "--memory", "256"],
      always(201, { machine: { ...machine, id: "copy", snapshot_id: "before" } }),
    );
    assert.equal(restored.requests[0]?.path, "/snapshots/before/restore");
    assert.deepEqual(restored.requests[0]?.body, { machine_id: "copy", memory_mib: 256 });
    assert.match(restored.out, /^made from +snapshot before$/m);
    const deleted = await cli(["delete-snapshot", "before"]);
    assert.equal(deleted.requests[0]?.path, "/snapshots/before");
  });

  it("ends with 1 when no daemon answers, and names the socket", async () => {
    const { code, err } = await cli(["list", "--socket", "/nowhere/x.sock"]);
    assert.equal(code, 1);
    assert.match(err, /\/nowhere\/x\.sock.*\(daemon_unreachable\)/);
  });

  it("ends with 2 when the command line is wrong, without asking the daemon", async () => {
    for (const argv of [
      [],
      ["nonsense"],
      ["get"],
      ["get", "a", "b"],
      ["list", "--no-such-option"],
      ["create", "web", "--memory", "much"],
      ["create", "web", "--memory", "100KiB"],
      ["create", "web", "--disk", "0.3"],
      ["create", "web", "--vcpus", "-1"],
      ["create", "web", "--ready", "later"],
      ["create", "web", "--webhook-token", "t"],
      ["create", "web", "--cpu-template", "T9"],
      ["create", "web", "--disk-ops", "many"],
      ["create", "web", "--rate-limits", "[]"],
      ["create", "web", "--rate-limits", "{"],
      ["create", "web", "--rate-limits", "{}", "--disk-ops", "5"],
      ["snapshot", "web", "before", "--memory", "some"],
      ["fork"],
      ["fork", "web", "--count", "two"],
      ["download", "before", "disk"],
      ["upload", "before"],
    ]) {
      const { code, err, requests } = await cli(argv);
      assert.equal(code, 2, argv.join(" "));
      assert.notEqual(err, "", argv.join(" "));
      assert.deepEqual(requests, []);
    }
  });

  it("helps when asked to, which is no error", async () => {
    const { code, out } = await cli(["--help"]);
    assert.equal(code, 0);
    assert.match(out, /^Usage: computer/);
  });
});
