import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../../src/system/run.ts";
import { PLAYGROUND } from "../support/playground.ts";
import { inStubWorld } from "../support/stub-world.ts";
import type { World } from "../support/world.ts";
import { startIllServer } from "./artifacts-server.ts";
import { FULL } from "./seed.ts";

const PORT = 8081;
const LINK_LOCAL = "169.254.169.254";
const REFUSED = "artifact_refused";
const UNAVAILABLE = "artifact_unavailable";
const INVALID = "image_invalid";

/** What a server does that means ill, and the code that the create ends with. */
const KERNELS: Readonly<Record<string, string>> = {
  "claims-much": REFUSED,
  "not-modified": UNAVAILABLE,
  "no-content": UNAVAILABLE,
  missing: UNAVAILABLE,
  "encoded-bomb": UNAVAILABLE,
  "gzip-bomb": INVALID,
  "zstd-bomb": INVALID,
  html: INVALID,
  empty: INVALID,
  text: INVALID,
  zeros: INVALID,
  "other-elf": INVALID,
  rootfs: INVALID,
  circle: UNAVAILABLE,
  "no-location": UNAVAILABLE,
};
/** The same, but asked again and again for seconds first: only in the long form. */
const BROKEN: Readonly<Record<string, string>> = {
  truncated: UNAVAILABLE,
  "lies-about-ranges": UNAVAILABLE,
  "not-http": UNAVAILABLE,
  "two-lengths": UNAVAILABLE,
  "bad-chunks": UNAVAILABLE,
  "headers-without-end": UNAVAILABLE,
};
const ROOT_DISKS: Readonly<Record<string, string>> = {
  partitioned: INVALID,
  qcow2: INVALID,
  "gzip-bomb": INVALID,
  html: INVALID,
  empty: INVALID,
  text: INVALID,
  zeros: INVALID,
  kernel: INVALID,
};

/** Where a server outside must not lead the daemon, in whatever clothes. */
const REDIRECTS: readonly (readonly [target: string, code: string])[] = [
  [`http://127.0.0.1:${PORT}/kernel`, REFUSED],
  [`http://localhost:${PORT}/kernel`, REFUSED],
  [`http://2130706433:${PORT}/kernel`, REFUSED],
  [`http://0x7f.1:${PORT}/kernel`, REFUSED],
  [`http://127.1.2.3:${PORT}/kernel`, REFUSED],
  [`http://0.0.0.0:${PORT}/kernel`, REFUSED],
  [`http://[::1]:${PORT}/kernel`, REFUSED],
  [`http://[::ffff:127.0.0.1]:${PORT}/kernel`, REFUSED],
  [`http://[::ffff:a9fe:a9fe]:${PORT}/kernel`, REFUSED],
  [`http://${LINK_LOCAL}:${PORT}/kernel`, REFUSED],
  [`http://${PLAYGROUND.private_addresses[0]}:${PORT}/kernel`, REFUSED],
  [`http://user:secret@127.0.0.1:${PORT}/kernel`, REFUSED],
  ["file:///etc/shadow", REFUSED],
  ["gopher://127.0.0.1/", REFUSED],
  ["/to?http://", UNAVAILABLE],
];

async function filesOf({ rootDir }: World): Promise<string[]> {
  const { stdout } = await run(["find", rootDir, "-type", "f", "-not", "-path", "*/state/*"]);
  return stdout.trim().split("\n").sort();
}

/** Bytes that the daemon's folder takes up on the disk. */
async function roomOf({ rootDir }: World): Promise<number> {
  return Number((await run(["du", "-s", "--block-size=1", rootDir])).stdout.split("\t")[0]);
}

/** The most memory that the daemon had at once, in MiB. */
function peakMib({ daemonPid }: World): number {
  const [, kib] = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${daemonPid}/status`, "utf8")) ?? [];
  return Number(kib) / 1024;
}

test("servers that mean ill are each refused in their own words, lead nowhere and leave nothing", async (t) => {
  await inStubWorld(async (world, { dir, body }) => {
    const { host, outside } = world.playground;
    await using ill = await startIllServer(outside, PLAYGROUND.public_address, PORT, dir);
    await using linkLocal = await startIllServer(outside, LINK_LOCAL, PORT, dir);
    await using inner = await startIllServer(outside, PLAYGROUND.private_addresses[0], PORT, dir);
    await using loopback = await startIllServer(host, "0.0.0.0", PORT, dir);
    const create = (machine_id: string, artifact: object): ReturnType<World["post"]> =>
      world.post("/machines", { ...body, machine_id, artifact: { ...body.artifact, ...artifact } });
    const cases = (
      field: string,
      table: readonly (readonly [string, string])[],
      path: (name: string) => string,
    ) =>
      table.map(([name, code]) => ({
        artifact: { [field]: `${ill.url}/${path(name)}` },
        code,
        what: `${field} ${name}`,
      }));
    const named = (name: string): string => name;
    const all = [
      ...cases("kernel_image_url", Object.entries(FULL ? { ...KERNELS, ...BROKEN } : KERNELS), named),
      ...cases("rootfs_url", Object.entries(ROOT_DISKS), named),
      ...cases("kernel_image_url", REDIRECTS, (target) => `to?${encodeURIComponent(target)}`),
      ...["kernel", "rootfs"].map((kind) => ({
        artifact: {
          [kind === "kernel" ? "kernel_image_url" : "rootfs_url"]: `${ill.url}/${kind}?other-digest`,
          [`${kind}_sha256`]: "0".repeat(64),
        },
        code: INVALID,
        what: `${kind} with another digest`,
      })),
    ];

    await create("good", {});
    assert.equal((await world.delete("/machines/good")).status, 204);
    await world.assertMatchesState();
    const [files, room] = [await filesOf(world), await roomOf(world)];

    await t.test("all at once, and a create that names good files beside them", async (inner) => {
      const answers = await Promise.all(
        all.map(async ({ artifact, ...rest }, index) => ({
          answer: await create(`ill-${index}`, artifact),
          ...rest,
        })),
      );
      for (const { answer, code, what } of answers)
        assert.equal(answer.body.code, code, `${what}: ${answer.status} ${JSON.stringify(answer.body)}`);
      inner.diagnostic(`${answers.length} creates from servers that mean ill`);
    });
    await t.test("nobody inside was asked", async () => {
      for (const server of [linkLocal, inner, loopback]) assert.deepEqual(await server.asked(), []);
      assert.ok((await ill.asked()).length >= all.length);
    });
    await t.test("nothing is left of them", async () => {
      await world.assertMatchesState();
      await world.assertAuditClean();
      assert.deepEqual(await filesOf(world), files);
      assert.ok((await roomOf(world)) - room < 2 ** 20);
    });
    await t.test("what does not end is ended by a delete, and holds up nobody", async (inner) => {
      const names = ["endless-zeros", "endless-noise", "slow", "silent", "silent-body"];
      const under = names.map((name) => create(name, { kernel_image_url: `${ill.url}/${name}` }));
      for (let attempt = 0, seen = 0; seen < names.length; attempt += 1, await sleep(50)) {
        assert.ok(attempt < 200, "the servers are not asked");
        seen += (await ill.asked()).length;
      }
      await sleep(500);
      assert.equal((await create("beside", {})).status, 201);
      for (const name of [...names, "beside"])
        assert.equal((await world.delete(`/machines/${name}`)).status, 204);
      for (const { body: answer } of await Promise.all(under))
        assert.equal(answer.code, "operation_cancelled");
      await world.assertMatchesState();
      assert.deepEqual(await filesOf(world), files);
      const peak = peakMib(world);
      inner.diagnostic(`the daemon had ${Math.round(peak)} MiB at most`);
      assert.ok(peak < 600, `the daemon had ${peak} MiB`);
    });
    await t.test("what a client itself names may be inside, and may lead on there", async () => {
      const url = `http://127.0.0.1:${PORT}`;
      const direct = await create("direct", { kernel_image_url: `${url}/kernel` });
      assert.equal(direct.status, 201, JSON.stringify(direct.body));
      const to = `${url}/to?${encodeURIComponent(`http://${LINK_LOCAL}:${PORT}/kernel`)}`;
      const led = await create("led", { kernel_image_url: to });
      assert.equal(led.status, 201, JSON.stringify(led.body));
      assert.deepEqual(await linkLocal.asked(), ["/kernel"]);
    });
    await t.test(
      "two bytes of magic are a root disk as far as the host goes: nobody here reads on",
      async () => {
        const made = await create("magic", { rootfs_url: `${ill.url}/only-magic` });
        assert.equal(made.status, 201, JSON.stringify(made.body));
      },
    );
  });
});
