import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Machine } from "../../../src/contract/machine.ts";
import { machine, snapshot, verdict } from "../client/support/samples.ts";
import { always } from "../client/support/socket-server.ts";
import { cli } from "./run.ts";

const made = always(201, { machine });

describe("computer create, the hardware", () => {
  it("sends each flag in the contract's fields", async () => {
    const { code, requests } = await cli(
      [
        ..."create web --smt --track-dirty-pages --huge-pages --cpu-template T2".split(" "),
        ..."--disk-bandwidth 50MiB --disk-ops 1000 --rx-bandwidth 1MiB --tx-bandwidth 2MiB".split(" "),
        "--boot-args",
        "quiet loglevel=1",
      ],
      made,
    );
    assert.equal(code, 0);
    const aSecond = { refill_time_ms: 1000 };
    assert.deepEqual(requests[0]?.body, {
      machine_id: "web",
      smt: true,
      track_dirty_pages: true,
      huge_pages: "2M",
      cpu_template: "T2",
      boot_args: "quiet loglevel=1",
      rate_limits: {
        disk: { bandwidth: { size: 50 * 2 ** 20, ...aSecond }, ops: { size: 1000, ...aSecond } },
        network_rx: { bandwidth: { size: 2 ** 20, ...aSecond } },
        network_tx: { bandwidth: { size: 2 * 2 ** 20, ...aSecond } },
      },
    });
  });

  it("limits only what was asked for", async () => {
    const { requests } = await cli("create web --disk-ops 5".split(" "), made);
    assert.deepEqual(requests[0]?.body, {
      machine_id: "web",
      rate_limits: { disk: { ops: { size: 5, refill_time_ms: 1000 } } },
    });
  });

  it("takes rate limits as the API does", async () => {
    const rate_limits = { disk: { ops: { size: 1, refill_time_ms: 10, one_time_burst: 100 } } };
    const { requests } = await cli(["create", "web", "--rate-limits", JSON.stringify(rate_limits)], made);
    assert.deepEqual(requests[0]?.body, { machine_id: "web", rate_limits });
  });
});

describe("computer get", () => {
  it("shows hardware, VMM and receipt where there is something to show", async () => {
    const plain = await cli(["get", "web"], always(200, { machine }));
    assert.doesNotMatch(plain.out, /^(hardware|vmm|receipt)/m);
    const woken: Machine = {
      ...machine,
      hardware: {
        ...machine.hardware,
        smt: true,
        huge_pages: "2M",
        cpu_template: "T2",
        boot_args: "quiet",
        rate_limits: { disk: { ops: { size: 5, refill_time_ms: 1000 } } },
      },
      vmm: {
        name: "some-vmm",
        version: "1.0",
        pid: 42,
        uid: 200_001,
        gid: 200_001,
        jail_id: "j",
        netns: "n",
        new_pid_ns: true,
        seccomp: "default",
        limits: { no_file: 1024, fsize_bytes: 1 },
        cgroup: { memory_bytes: 1, cpus: 1, pids: 1 },
      },
      receipt: [
        { item: "hostname", done: true, how: "set in the running kernel and in /etc/hostname" },
        { item: "randomness", done: false, how: "the guest has no /dev/urandom" },
      ],
    };
    const { out } = await cli(["get", "web"], always(200, { machine: woken }));
    assert.match(
      out,
      /^hardware +SMT, huge pages, CPU template T2, rate limits \{"disk".*\}, boot arguments "quiet"$/m,
    );
    assert.match(out, /^vmm +some-vmm 1\.0, pid 42, uid 200001$/m);
    assert.match(out, /^receipt +hostname: done, set in the running kernel/m);
    assert.match(out, /^receipt +randomness: not done, the guest has no/m);
  });
});

describe("computer snapshot and restore", () => {
  const taken = always(201, { snapshot: { ...snapshot, memory: "full" }, artifacts: snapshot.artifacts });

  it("asks for the memory in each of the ways that there are", async () => {
    for (const [flags, memory] of [
      [["--memory"], true],
      [["--memory", "full"], "full"],
      [["--memory=diff"], "diff"],
    ] as const) {
      const { code, out, requests } = await cli(["snapshot", "web", "before", ...flags], taken);
      assert.deepEqual([code, requests[0]?.body], [0, { snapshot_id: "before", memory }]);
      assert.match(out, /^memory kept +full$/m);
    }
  });

  it("restores live unless told to boot, and then takes a size as well", async () => {
    const body = async (flags: string) =>
      (await cli(`restore before copy${flags}`.split(" "), made)).requests[0]?.body;
    assert.deepEqual(await body(""), { machine_id: "copy" });
    assert.deepEqual(await body(" --no-memory"), { machine_id: "copy", memory: false });
    assert.deepEqual(await body(" --no-memory --memory 1GiB"), {
      machine_id: "copy",
      memory_mib: 1024,
      memory: false,
    });
  });

  it("tells the verdict and what stands against it", async () => {
    const { out, requests } = await cli(["compatibility", "before"], always(200, verdict));
    assert.equal(requests[0]?.path, "/snapshots/before/compatibility");
    assert.match(out, /^restorable +disk$/m);
    assert.match(out, /^not live +This host's CPU lacks avx512f\. \(cpu_features\)$/m);
    assert.deepEqual(
      JSON.parse((await cli(["compatibility", "before", "--json"], always(200, verdict))).out),
      verdict,
    );
  });
});

describe("computer fork", () => {
  const machines = [
    { ...machine, id: "kid-1" },
    { ...machine, id: "kid-2" },
  ];

  it("makes one child, or several", async () => {
    const one = await cli(["fork", "web", "kid", "--hostname", "kid"], always(201, { machines }));
    assert.equal(one.requests[0]?.path, "/machines/web/fork");
    assert.deepEqual(one.requests[0]?.body, { machine_id: "kid", guest_config: { hostname: "kid" } });
    const { code, out, err, requests } = await cli(
      "fork web --count 2 --prefix kid- --ready started".split(" "),
      always(201, { machines }),
    );
    assert.deepEqual([code, err], [0, ""]);
    assert.deepEqual(requests[0]?.body, { count: 2, id_prefix: "kid-", ready: "started" });
    assert.match(out, /^kid-1 +running .*\nkid-2 +running /m);
  });

  it("says so when they were there already", async () => {
    const { err } = await cli(["fork", "web", "kid"], always(200, { machines }));
    assert.match(err, /were there already/);
  });
});
