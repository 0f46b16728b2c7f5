import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { type Lab, startLab } from "./lab.ts";
import { realPair } from "./payload.ts";
import { Service } from "./service.ts";

const IMAGE_DIR = process.env["IMAGE_DIR"] ?? "/var/cache/computer-host/images";
/** `make test` takes the first part, `make test-lab` all of it. */
const full = process.env["LAB"] === "full";
const pair = realPair(process.env);
const skip = process.getuid?.() === 0 ? false : "needs root";

test("the daemon as a service of a whole host", { skip, timeout: 1_800_000 }, async (t) => {
  await using lab = await startLab({ imageDir: IMAGE_DIR, pair: full ? pair : undefined });
  t.diagnostic(`booted: ${await lab.print("systemd-analyze | head -n 1")}`);
  const service = await Service.install(lab);
  try {
    await onStandIns(t, lab, service);
    if (full) await withSnapshotsAndRestarts(t, lab, service);
    if (full) await onRealPair(t, lab, service);
  } catch (error) {
    process.stderr.write(`${await service.journal()}\n`);
    throw error;
  }
});

async function onStandIns(t: TestContext, lab: Lab, service: Service): Promise<void> {
  let machine: Machine | undefined;
  await step(t, "systemd starts it, and it serves", async () => {
    await service.control("start");
    const health = await service.waitServing();
    assert.equal(health.ok, true);
    assert.match(health.vmm.name, /stand-in|qemu/);
  });
  await step(t, "a created machine answers over SSH as the one it was made to be", async () => {
    machine = await service.create("one");
    const seen = await service.inGuest(machine, "hostname; cat /etc/machine-id");
    assert.equal(seen, `one\n${machine.guest_machine_id}`);
  });
  await step(t, "it runs under KVM, in a cgroup outside of the service's", async () => {
    assert.ok(machine?.vmm);
    await assertUnderKvm(lab, machine.vmm.pid);
    await assertOwnCgroup(lab, machine.vmm);
  });
  await step(t, "the journal has one JSON object a line, each with its priority", () => assertJournal(lab));
  await step(
    t,
    "the host holds what the state says, and nothing of the machine once it is deleted",
    async () => {
      assert.ok(machine);
      await service.assertMatchesState();
      await service.expect(204, "DELETE", "/machines/one");
      await assertGone(lab, machine);
      await service.assertMatchesState();
    },
  );
}

async function withSnapshotsAndRestarts(t: TestContext, lab: Lab, service: Service): Promise<void> {
  await step(t, "machines live on through a restart of the service, which takes them over", async () => {
    const one = await service.create("one");
    assert.ok(one.vmm);
    const [daemon, booted] = await Promise.all([
      lab.print("systemctl show -p MainPID --value computer-host"),
      service.inGuest(
        one,
        "cat /proc/sys/kernel/random/boot_id; nohup sleep 1000 >/dev/null 2>&1 & echo started",
      ),
    ]);
    await service.control("restart");
    await service.waitServing();
    assert.notEqual(await lab.print("systemctl show -p MainPID --value computer-host"), daemon);
    const { machine } = await service.expect(200, "GET", "/machines/one");
    assert.equal(machine.phase, "running");
    assert.equal(machine.vmm.pid, one.vmm.pid, "the same VMM");
    assert.equal(
      await service.inGuest(
        machine,
        "cat /proc/sys/kernel/random/boot_id; pgrep -x sleep >/dev/null && echo started",
      ),
      booted,
      "the same boot of the guest, with its process",
    );
  });
  await step(t, "a daemon that is killed is started again by systemd, and takes over too", async () => {
    const before = await lab.print("systemctl show -p MainPID --value computer-host");
    await lab.run(`kill -KILL ${before}`);
    await service.waitServing();
    const { machine } = await service.expect(200, "GET", "/machines/one");
    assert.equal(machine.phase, "running");
    assert.equal(await lab.print("systemctl show -p NRestarts --value computer-host"), "1");
  });
  await step(t, "a snapshot of it becomes another machine with the file and its own identity", async () => {
    const { machine: one } = await service.expect(200, "GET", "/machines/one");
    await service.inGuest(one, "echo kept >/root/note");
    await service.expect(201, "POST", "/machines/one/snapshots", { snapshot_id: "note" });
    const { machine: two } = await service.expect(201, "POST", "/snapshots/note/restore", {
      machine_id: "two",
      memory_mib: 256,
      guest_config: { authorized_keys: [service.publicKey] },
    });
    assert.equal(
      await service.inGuest(two, "cat /root/note; hostname; cat /etc/machine-id"),
      `kept\ntwo\n${two.guest_machine_id}`,
    );
    assert.notEqual(two.guest_machine_id, one.guest_machine_id);
    assert.equal(await service.inGuest(one, "hostname"), "one");
  });
  await step(
    t,
    "a stopped service leaves the guests running, and they are deleted after its next start",
    async () => {
      const { machines } = await service.expect(200, "GET", "/machines");
      await service.control("stop");
      for (const machine of machines) assert.ok(await service.lives(machine.vmm.pid), machine.id);
      await service.control("start");
      await service.waitServing();
      for (const machine of machines) {
        await service.expect(204, "DELETE", `/machines/${machine.id}`);
        await assertGone(lab, machine);
      }
      await service.expect(204, "DELETE", "/snapshots/note");
      await service.assertMatchesState();
    },
  );
}

async function onRealPair(t: TestContext, lab: Lab, service: Service): Promise<void> {
  await t.test(
    "the real Firecracker and jailer: create, SSH, snapshot, restore, restart, delete",
    { skip: pair === undefined ? "needs a real Firecracker pair" : false },
    async () => {
      await service.configure({
        FIRECRACKER_BINARY_PATH: "/lab/pair/firecracker",
        JAILER_BINARY_PATH: "/lab/pair/jailer",
      });
      await service.control("restart");
      const health = await service.waitServing();
      assert.equal(health.vmm.firecracker_path, "/lab/pair/firecracker");
      const one = await service.create("real-one");
      assert.ok(one.vmm);
      assert.equal(await service.inGuest(one, "echo kept >/root/note; sync; hostname"), "real-one");
      assert.match(await lab.print(`readlink /proc/${one.vmm.pid}/exe`), /firecracker/);
      await assertOwnCgroup(lab, one.vmm);
      await service.expect(201, "POST", "/machines/real-one/snapshots", { snapshot_id: "real-note" });
      const { machine: two } = await service.expect(201, "POST", "/snapshots/real-note/restore", {
        machine_id: "real-two",
        memory_mib: 256,
        guest_config: { authorized_keys: [service.publicKey] },
      });
      assert.equal(
        await service.inGuest(two, "cat /root/note; hostname; cat /etc/machine-id"),
        `kept\nreal-two\n${two.guest_machine_id}`,
      );
      await service.assertMatchesState();
      await service.control("restart");
      await service.waitServing();
      for (const machine of [one, two]) {
        assert.equal(await service.inGuest(machine, "hostname"), machine.id);
        await service.expect(204, "DELETE", `/machines/${machine.id}`);
        await assertGone(lab, machine);
      }
      await service.expect(204, "DELETE", "/snapshots/real-note");
      await service.assertMatchesState();
    },
  );
}

/** A subtest whose failure ends the whole test: what comes after builds on it. Says how long it took. */
async function step(t: TestContext, name: string, body: () => Promise<void>): Promise<void> {
  const thrown: unknown[] = [];
  await t.test(name, async () => {
    try {
      await body();
    } catch (error) {
      thrown.push(error);
      throw error;
    }
  });
  if (thrown.length > 0) throw new Error(`${name}: failed, and the rest was not tried`, { cause: thrown[0] });
}

/** The VMM of the pid, or a process that it started, is QEMU with KVM as its accelerator. */
async function assertUnderKvm(lab: Lab, pid: number): Promise<void> {
  const commands = await lab.print(
    `for p in ${pid} $(pgrep -P ${pid}); do tr '\\0' ' ' </proc/$p/cmdline; echo; done`,
  );
  assert.match(commands, /qemu-system-x86_64 .*-accel kvm/);
}

/** The VMM lies in a leaf of its own below our parent, and nothing but the daemon's program in the service's cgroup. */
async function assertOwnCgroup(lab: Lab, vmm: NonNullable<Machine["vmm"]>): Promise<void> {
  assert.match(
    await lab.print(`cat /proc/${vmm.pid}/cgroup`),
    new RegExp(`^0::/computer-host-[0-9a-f]{6}/${vmm.jail_id}$`),
  );
  assert.match(
    await lab.print(`cat /sys/fs/cgroup/computer-host-*/${vmm.jail_id}/memory.max`),
    /^[0-9]+$/,
    "its memory is limited",
  );
  const [inService, daemon] = (
    await lab.print(
      "cat /sys/fs/cgroup/system.slice/computer-host.service/cgroup.procs | tr '\\n' ' '; echo; systemctl show -p MainPID --value computer-host",
    )
  ).split("\n");
  assert.equal(inService?.trim(), daemon, "the service holds the daemon alone");
}

/** Every line that the daemon wrote is one JSON object, without its prefix, and the journal knows its priority. */
async function assertJournal(lab: Lab): Promise<void> {
  // Of the daemon's own process: what systemd says about the service, and what runs before it, is not JSON.
  const text = await lab.print(
    "journalctl _PID=$(systemctl show -p MainPID --value computer-host) -o json --output-fields=MESSAGE,PRIORITY",
  );
  const ours = text.split("\n").map((line): Record<string, unknown> => JSON.parse(line));
  assert.ok(ours.length >= 3, text);
  const levels: Readonly<Record<string, string>> = {
    "10": "7",
    "20": "7",
    "30": "6",
    "40": "4",
    "50": "3",
    "60": "2",
  };
  for (const { MESSAGE, PRIORITY } of ours) {
    const event: { level?: number; message?: unknown } = JSON.parse(String(MESSAGE));
    assert.equal(typeof event.message, "string", String(MESSAGE));
    assert.equal(PRIORITY, levels[String(event.level)], String(MESSAGE));
  }
  assert.ok(
    ours.some(({ MESSAGE }) => JSON.parse(String(MESSAGE)).machine_id === "one"),
    `an event names the machine:\n${text}`,
  );
}

/** Nothing of the machine is left: its process, jail, cgroup, disk and what its namespace was opened for. */
async function assertGone(lab: Lab, { id, vmm }: Machine): Promise<void> {
  assert.ok(vmm);
  const left = await lab.print(
    [
      // Sweeps may lag behind the answer: for at most ten seconds.
      "for i in $(seq 50); do",
      `left=$(ls -d /proc/${vmm.pid} /var/lib/computer-host/machines/${id} /var/lib/computer-host/jails/*/${vmm.jail_id} \\`,
      `/sys/fs/cgroup/computer-host-*/${vmm.jail_id} 2>/dev/null)`,
      '[ -n "$left" ] || exit 0',
      "sleep 0.2",
      "done",
      'echo "$left"',
    ].join("\n"),
  );
  assert.equal(left, "");
}
