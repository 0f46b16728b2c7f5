import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import type { Lab } from "./lab.ts";
import type { Service } from "./service.ts";
import { assertGone, assertOwnCgroup, step } from "./steps.ts";

const COUNTER =
  "nohup sh -c 'echo $$ >/run/counter; i=0; while :; do i=$((i+1)); echo $i >/run/count.new; mv /run/count.new /run/count; sleep 0.1; done' >/dev/null 2>&1 &";

/** Asks the guest's metadata service as a guest does that knows version 2: for a token first. Prints both answers. */
const METADATA = `ask() { exec 3<>/dev/tcp/169.254.169.254/80; printf '%b' "$1" >&3; timeout 10 cat <&3; exec 3>&-; }
ask 'GET /latest/meta-data/local-hostname HTTP/1.1\\r\\nHost: metadata\\r\\nConnection: close\\r\\n\\r\\n' | head -n 1
token=$(ask 'PUT /latest/api/token HTTP/1.1\\r\\nHost: metadata\\r\\nX-metadata-token-ttl-seconds: 60\\r\\n\\r\\n' | tail -n 1)
ask "GET /latest/meta-data/local-hostname HTTP/1.1\\\\r\\\\nHost: metadata\\\\r\\\\nX-metadata-token: $token\\\\r\\\\n\\\\r\\\\n" | tail -n 1`;

/** What distinguishes one guest from another, a line each. */
const SELF =
  "hostname; cat /etc/machine-id; cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub; head -c 16 /dev/urandom | od -An -v -tx1 | tr -d ' \\n'; echo; cat /run/counter /run/count; date +%s";

const inBash = (service: Service, machine: Machine, script: string): Promise<string> =>
  service.inGuest(machine, `echo ${Buffer.from(script).toString("base64")} | base64 -d | bash`);

/**
 * Memory snapshots of a real Linux guest on a VMM that is there already: metadata from inside, two live restores at once,
 * a diff, a fork, adoption of woken machines. `prefix` keeps the ids of several runs apart.
 */
export async function withMemory(t: TestContext, lab: Lab, service: Service, prefix: string): Promise<void> {
  const id = (name: string): string => `${prefix}-${name}`;
  const guest_config = { authorized_keys: [service.publicKey] };
  const restore = async (snapshot: string, machine_id: string, more: object = {}): Promise<Machine> =>
    (
      await service.expect(201, "POST", `/snapshots/${snapshot}/restore`, {
        machine_id,
        guest_config,
        ...more,
      })
    ).machine;
  let source: Machine | undefined;
  let twins: Machine[] = [];
  const all = (): Machine[] => (source === undefined ? twins : [source, ...twins]);

  await step(
    t,
    lab,
    `${prefix}: a guest asks its metadata service who it is, and needs a token for that`,
    async () => {
      source = await service.create(id("source"), { track_dirty_pages: true });
      await inBash(service, source, COUNTER);
      const [refused, name] = (await inBash(service, source, METADATA)).split("\n");
      assert.match(refused ?? "", /401/);
      assert.equal(name?.trim(), id("source"));
    },
  );
  await step(t, lab, `${prefix}: two live restores of it at once are two others, both going on`, async () => {
    assert.ok(source);
    const { snapshot } = await service.expect(201, "POST", `/machines/${source.id}/snapshots`, {
      snapshot_id: id("full"),
      memory: true,
    });
    t.diagnostic(`${prefix}: paused for ${snapshot.paused_ms} ms`);
    const verdict = await service.expect(200, "GET", `/snapshots/${id("full")}/compatibility`);
    assert.deepEqual([verdict.restorable, verdict.reasons], ["live", []]);
    twins = await Promise.all(["left", "right"].map((name) => restore(id("full"), id(name))));
    const selves = (await Promise.all(all().map((machine) => inBash(service, machine, SELF)))).map((text) =>
      text.split("\n"),
    );
    for (const [index, what] of ["hostname", "machine-id", "host key", "random bytes"].entries())
      assert.equal(new Set(selves.map((self) => self[index])).size, 3, what);
    assert.equal(new Set(selves.map((self) => self[4])).size, 1, "the same process");
    const here = Number(await lab.print("date +%s"));
    all().forEach((machine, index) => {
      const [hostname, machineId, hostKey, , , count, date] = selves[index] ?? [];
      assert.deepEqual(
        [hostname, machineId, hostKey],
        [machine.id, machine.guest_machine_id, machine.guest_ssh_host_public_key],
      );
      assert.ok(
        Number(count) > 0 && Math.abs(Number(date) - here) < 30,
        `${machine.id} is at ${count}, ${date}; the host at ${here}`,
      );
    });
    for (const twin of twins) {
      assert.ok(
        twin.receipt?.every(({ done }) => done),
        JSON.stringify(twin.receipt),
      );
      assert.ok(twin.vmm);
      await assertOwnCgroup(lab, twin.vmm);
      const [, name] = (await inBash(service, twin, METADATA)).split("\n");
      assert.equal(name?.trim(), twin.id, "its metadata is its own");
    }
    await service.assertMatchesState();
  });
  await step(t, lab, `${prefix}: a diff merged with its base, woken after the base is gone`, async () => {
    assert.ok(source);
    await service.inGuest(source, "echo later >/run/note");
    await service.expect(201, "POST", `/machines/${source.id}/snapshots`, {
      snapshot_id: id("diff"),
      memory: "diff",
    });
    await service.expect(204, "DELETE", `/snapshots/${id("full")}`);
    const third = await restore(id("diff"), id("third"));
    assert.equal(await service.inGuest(third, "cat /run/note"), "later");
    twins.push(third);
  });
  await step(t, lab, `${prefix}: a fork of two, the source running on`, async () => {
    assert.ok(source);
    const { machines } = await service.expect(201, "POST", `/machines/${source.id}/fork`, {
      count: 2,
      id_prefix: id("kid-"),
      guest_config,
    });
    for (const kid of machines as Machine[]) assert.equal(await service.inGuest(kid, "hostname"), kid.id);
    const [before = "", after = ""] = (
      await service.inGuest(source, "cat /run/count; sleep 1; cat /run/count")
    ).split("\n");
    assert.ok(Number(after) > Number(before), `the source stands at ${before}`);
    for (const kid of machines as Machine[]) {
      await service.expect(204, "DELETE", `/machines/${kid.id}`);
      await assertGone(lab, kid);
    }
  });
  await step(
    t,
    lab,
    `${prefix}: woken machines outlive their daemon, and leave nothing when they are deleted`,
    async () => {
      await lab.run("kill -KILL $(systemctl show -p MainPID --value computer-host)");
      await service.waitServing();
      for (const machine of all()) {
        const found = (await service.expect(200, "GET", `/machines/${machine.id}`)).machine;
        assert.deepEqual([found.phase, found.vmm.pid], ["running", machine.vmm?.pid]);
        assert.equal(await service.inGuest(machine, "hostname"), machine.id);
      }
      await service.assertMatchesState();
      for (const machine of all()) {
        await service.expect(204, "DELETE", `/machines/${machine.id}`);
        await assertGone(lab, machine);
      }
      await service.expect(204, "DELETE", `/snapshots/${id("diff")}`);
      await service.assertMatchesState();
    },
  );
}
