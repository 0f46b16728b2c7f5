import assert from "node:assert/strict";
import { test } from "node:test";
import type { Machine } from "../../src/contract/machine.ts";
import { PLAYGROUND, placeIn } from "../support/playground.ts";
import { inWorld, type World } from "../support/world.ts";

const { public_address, private_addresses, private_resolver, host_address } = PLAYGROUND;
const DENIED_RANGES = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16"];

/** How long a probe waits that must succeed: ten guests share few processors. One that must fail waits its time out. */
const PATIENT_S = 30;
const DENIED_S = 4;

/** A shell command that ends with 0 when `address` answers on the TCP port in time. */
function tcp(address: string, port: number, seconds: number): string {
  return `timeout ${seconds} bash -c 'exec 3<>/dev/tcp/${address}/${port} && read -r line <&3 && [ -n "$line" ]' 2>/dev/null`;
}

async function reaches(world: World, machine: Machine, address: string, port: number): Promise<boolean> {
  return await world.succeeds(machine, tcp(address, port, PATIENT_S));
}

async function isDenied(world: World, machine: Machine, address: string, port: number): Promise<boolean> {
  return !(await world.succeeds(machine, tcp(address, port, DENIED_S)));
}

/** Which of the commands succeed in the guest, over one SSH connection: side by side, since each waits for its limit. */
async function successes(world: World, machine: Machine, commands: readonly string[]): Promise<boolean[]> {
  const script = commands
    .map((command, index) => `( if ${command}; then echo ${index} yes; else echo ${index} no; fi ) &`)
    .join("\n");
  const lines = (await world.print(machine, `${script}\nwait`)).split("\n");
  assert.equal(lines.length, commands.length);
  return commands.map((_, index) => lines.includes(`${index} yes`));
}

test("ten machines at once reach the outside, and neither each other nor the host nor anything private", async (t) => {
  await inWorld(
    async (world) => {
      const names = Array.from({ length: 10 }, (_, index) => `m${index}`);
      const machines = await Promise.all(names.map((name) => world.create(name, { memory_mib: 128 })));
      const [one, two] = machines;
      assert.ok(one?.runtime_host !== undefined && two?.runtime_host !== undefined);
      const table = `computer-host-${world.tag}`;
      const nft = (command: string) => world.playground.host.run(["nft", command]);

      await t.test("each has an identity, an address and a uid of its own", () => {
        for (const field of ["guest_machine_id", "guest_ssh_host_public_key", "runtime_host"] as const) {
          assert.equal(new Set(machines.map((machine) => machine[field])).size, 10, field);
        }
        assert.equal(new Set(machines.map(({ vmm }) => vmm?.uid)).size, 10);
        assert.equal(new Set(machines.map(({ vmm }) => vmm?.netns)).size, 10);
      });

      await t.test("all of them reach the outside at once, and their resolver", async () => {
        const results = await Promise.all(
          machines.map((machine) =>
            successes(world, machine, [
              tcp(public_address, 443, PATIENT_S),
              `timeout 30 busybox nslookup some.example ${private_resolver} >/dev/null`,
            ]),
          ),
        );
        assert.deepEqual(
          results.flat(),
          Array.from({ length: 20 }, () => true),
        );
        assert.match(
          await world.print(one, "cat /etc/resolv.conf"),
          new RegExp(`nameserver ${private_resolver}`),
        );
      });

      await t.test("none reaches a private range, its neighbours, the host or the gateway", async () => {
        const probes = [
          ...private_addresses.map((address) => tcp(address, 80, DENIED_S)),
          tcp(private_resolver, 80, DENIED_S),
          tcp(host_address, 22, DENIED_S),
          tcp("172.16.0.1", 22, DENIED_S),
        ];
        const results = await Promise.all(
          machines.map((machine, index) => {
            const neighbour = machines[(index + 1) % machines.length]?.runtime_host ?? "";
            return successes(world, machine, [...probes, tcp(neighbour, 22, DENIED_S)]);
          }),
        );
        assert.deepEqual(results.flat().filter(Boolean), []);
      });

      await t.test("each denied range answers once that one range is lifted", async () => {
        for (const [index, range] of DENIED_RANGES.entries()) {
          const address = private_addresses[index] ?? "";
          await nft(`delete element inet ${table} denied { ${range} }`);
          assert.ok(await reaches(world, one, address, 80), `${address} with ${range} lifted`);
          await nft(`add element inet ${table} denied { ${range} }`);
          assert.ok(await isDenied(world, one, address, 80), `${address} with ${range} back`);
        }
      });

      await t.test("the host answers once that one rule is lifted", async () => {
        // The servers of the outside are not on the host: a shell of the host's own namespace serves here.
        const server = world.playground.host.command([
          "busybox",
          "nc",
          "-ll",
          "-p",
          "2222",
          "-e",
          "echo",
          "hello",
        ]);
        const { spawn } = await import("node:child_process");
        const [file, ...args] = server;
        const child = spawn(file, args, { stdio: "ignore" });
        try {
          assert.ok(await isDenied(world, one, host_address, 2222));
          await nft(`insert rule inet ${table} slot_to_host tcp dport 2222 accept`);
          assert.ok(await reaches(world, one, host_address, 2222), "the host with its rule lifted");
        } finally {
          child.kill("SIGKILL");
        }
      });

      await t.test(
        "a neighbour answers once the three rules in the way are lifted, and not before",
        async () => {
          const neighbour = two.runtime_host ?? "";
          await nft(`insert rule inet ${table} from_slot accept`);
          assert.ok(await isDenied(world, one, neighbour, 22), "one of three is lifted");
          await nft(`insert rule inet ${table} to_slot accept`);
          assert.ok(await isDenied(world, one, neighbour, 22), "two of three are lifted");
          await placeIn(two.vmm?.netns ?? "").run(["nft", "insert rule inet computer-host forward accept"]);
          // sshd speaks first: its banner is the line that is waited for.
          assert.ok(await reaches(world, one, neighbour, 22), "all three are lifted");
        },
      );

      await t.test("a guest cannot speak from an address that is not its own", async () => {
        const heard = async (text: string): Promise<boolean> => {
          const command = `timeout 2 bash -c 'exec 3<>/dev/tcp/${PLAYGROUND.outside_address}/9; cat <&3'`;
          const { stdout } = await world.playground.host.run(["sh", "-c", command], { okCodes: [0, 124] });
          return stdout.includes(text);
        };
        const send = (text: string) => `echo ${text} > /dev/udp/${public_address}/9`;
        await world.ssh(one, `bash -c '${send("honest")}'; sleep 0.2`);
        assert.ok(await heard("honest"), "what is sent from its own address arrives");
        const spoof =
          "ip addr add 172.16.0.9/32 dev eth0; ip route replace 203.0.113.7/32 via 172.16.0.1 dev eth0 src 172.16.0.9";
        await world.ssh(
          one,
          `${spoof}; bash -c '${send("forged")}'; sleep 0.5; ip route del 203.0.113.7/32; ip addr del 172.16.0.9/32 dev eth0`,
        );
        assert.equal(await heard("forged"), false);
      });

      await t.test("nobody outside reaches a guest, and the host does", async () => {
        await world.playground.outside.run(["ip", "route", "replace", "10.200.0.0/24", "via", host_address]);
        const probe = (place: typeof world.playground.host) =>
          place.run(
            ["bash", "-c", `timeout 2 bash -c 'exec 3<>/dev/tcp/${one.runtime_host}/22 && head -c 4 <&3'`],
            { okCodes: [0, 1, 124] },
          );
        assert.equal((await probe(world.playground.outside)).stdout, "");
        assert.equal((await probe(world.playground.host)).stdout, "SSH-");
      });

      await t.test("IPv6 is off inside", async () => {
        assert.equal(await world.succeeds(one, "ip -6 addr show dev eth0 | grep -q 'scope global'"), false);
      });

      await t.test("a restart puts the rules back that somebody changed", async () => {
        await world.endDaemon();
        await world.startDaemon();
        await world.waitAuditClean();
        assert.ok(await isDenied(world, one, two.runtime_host ?? "", 22));
        assert.ok(await reaches(world, one, public_address, 443));
      });
    },
    {
      env: {
        FIRECRACKER_HOST_READY_TIMEOUT: "400s",
        // The daemon would put back the rules that this test takes out to see that they are what denies.
        FIRECRACKER_HOST_RECONCILE_INTERVAL: "1h",
      },
    },
  );
});
