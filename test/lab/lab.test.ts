import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { type Lab, LabFroze, startLab } from "./lab.ts";
import { realPair } from "./payload.ts";
import { withMemory } from "./memory.ts";
import { Service } from "./service.ts";
import { assertGone, assertOwnCgroup, step } from "./steps.ts";

const IMAGE_DIR = process.env["IMAGE_DIR"] ?? "/var/cache/computer-host/images";
/** `make test` takes the first part, `make test-lab` (full) all of it; `pair` takes the first part and the real pair's. */
const part = process.env["LAB"] ?? "short";
const pair = realPair(process.env);
const PAIR = {
  FIRECRACKER_BINARY_PATH: "/lab/pair/firecracker",
  JAILER_BINARY_PATH: "/lab/pair/jailer",
} as const;
const MIB = 1024 * 1024;
const TIME_MS = { short: 1_500_000, full: 3_600_000 } as const;
const skip = process.getuid?.() === 0 ? false : "needs root";

test("the daemon as a service of a whole host", {
  skip,
  timeout: part === "short" ? TIME_MS.short : TIME_MS.full,
}, async (t) => {
  try {
    await inLab(t);
  } catch (error) {
    // An emulated host with emulated virtualisation can stand still: another one is taken, once.
    if (!(error instanceof LabFroze)) throw error;
    t.diagnostic(`${error.message}\nanother lab is taken`);
    await inLab(t);
  }
});

async function inLab(t: TestContext): Promise<void> {
  await using lab = await startLab({ imageDir: IMAGE_DIR, pair: part === "short" ? undefined : pair });
  t.diagnostic(`booted: ${await lab.print("systemd-analyze | head -n 1")}`);
  const service = await Service.install(lab);
  try {
    await onStandIns(t, lab, service);
    if (part === "full") await withSnapshotsAndRestarts(t, lab, service);
    if (part !== "short") await onRealPair(t, lab, service);
  } catch (error) {
    if (!(error instanceof LabFroze)) process.stderr.write(`${await service.journal().catch(String)}\n`);
    throw error;
  }
}

async function onStandIns(t: TestContext, lab: Lab, service: Service): Promise<void> {
  let machine: Machine | undefined;
  await step(t, lab, "systemd starts it, and it serves", async () => {
    await service.control("start");
    const health = await service.waitServing();
    assert.equal(health.ok, true);
    assert.match(health.vmm.name, /stand-in|qemu/);
  });
  await step(t, lab, "a created machine answers over SSH as the one it was made to be", async () => {
    machine = await service.create("one");
    const seen = await service.inGuest(machine, "hostname; cat /etc/machine-id");
    assert.equal(seen, `one\n${machine.guest_machine_id}`);
  });
  await step(t, lab, "it runs under KVM, in a cgroup outside of the service's", async () => {
    assert.ok(machine?.vmm);
    await assertUnderKvm(lab, machine.vmm.pid);
    await assertOwnCgroup(lab, machine.vmm);
  });
  await step(t, lab, "the journal has one JSON object a line, each with its priority", () =>
    assertJournal(lab),
  );
  await step(
    t,
    lab,
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
  await step(t, lab, "machines live on through a restart of the service, which takes them over", async () => {
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
  await step(t, lab, "a daemon that is killed is started again by systemd, and takes over too", async () => {
    const before = await lab.print("systemctl show -p MainPID --value computer-host");
    await lab.run(`kill -KILL ${before}`);
    await service.waitServing();
    const { machine } = await service.expect(200, "GET", "/machines/one");
    assert.equal(machine.phase, "running");
    assert.equal(await lab.print("systemctl show -p NRestarts --value computer-host"), "1");
  });
  await step(
    t,
    lab,
    "a snapshot of it becomes another machine with the file and its own identity",
    async () => {
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
    },
  );
  await step(
    t,
    lab,
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
      await service.configure(PAIR);
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
  if (pair === undefined) return;
  await withMemory(t, lab, service, "mmio");
  await withLimits(t, lab, service);
  await service.configure({ ...PAIR, FIRECRACKER_HOST_ENABLE_PCI: "true" });
  await service.control("restart");
  await service.waitServing();
  await withMemory(t, lab, service, "pci");
}

/** What only a VMM of its own kind can show: a limit on the disk that the guest feels, and what the check says of a real host. */
async function withLimits(t: TestContext, lab: Lab, service: Service): Promise<void> {
  await step(
    t,
    lab,
    "a rate limit on the disk holds the guest back, and one without it is faster",
    async () => {
      const limited = { disk: { bandwidth: { size: 2 * MIB, refill_time_ms: 1000 } } };
      const writes = async (id: string, body: object): Promise<number> => {
        const machine = await service.create(id, body);
        const text = await service.inGuest(
          machine,
          "sync; s=$(date +%s%N); dd if=/dev/zero of=/root/f bs=1M count=16 oflag=direct 2>/dev/null; e=$(date +%s%N); echo $(( (e - s) / 1000000 ))",
        );
        await service.expect(204, "DELETE", `/machines/${id}`);
        return Number(text);
      };
      const slow = await writes("slow", { rate_limits: limited });
      const fast = await writes("fast", {});
      t.diagnostic(`16 MiB: ${slow} ms under a limit of 2 MiB/s, ${fast} ms without`);
      assert.ok(slow > 5000 && slow > 2 * fast, `${slow} ms limited, ${fast} ms not`);
    },
  );
  await step(t, lab, "the check says what it thinks of this host", async () => {
    const said = await lab.print(
      "set -a; . /etc/computer-host/computer-host.env; /opt/computer-host/computer-host --check",
      { okCodes: [0, 1] },
    );
    t.diagnostic(said);
    assert.doesNotMatch(said, /^FAIL/m);
    assert.match(said, /^ok +cgroups +version 2/m);
  });
}

/** The VMM of the pid, or a process that it started, is QEMU with KVM as its accelerator. */
async function assertUnderKvm(lab: Lab, pid: number): Promise<void> {
  const commands = await lab.print(
    `for p in ${pid} $(pgrep -P ${pid}); do tr '\\0' ' ' </proc/$p/cmdline; echo; done`,
  );
  assert.match(commands, /qemu-system-x86_64 .*-accel kvm/);
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
