import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Claim, claim, claimClash, unclaim } from "../../../src/network/claim.ts";

const HERE = "net:[1]";

function claimBy(root: string, change: Partial<Claim> = {}): Claim {
  return {
    root,
    cidr: "10.200.0.0/16",
    network_namespace: HERE,
    uid_base: 200000,
    uid_count: 32766,
    ...change,
  };
}

/** A folder for claims and two roots that exist. */
async function makeHost() {
  const folder = await mkdtemp(join(tmpdir(), "chclaim-"));
  const roots = [await mkdtemp(join(folder, "one-")), await mkdtemp(join(folder, "two-"))] as const;
  return {
    claims: join(folder, "claims"),
    one: claimBy(roots[0]),
    two: claimBy(roots[1], { cidr: "10.201.0.0/16", uid_base: 300000 }),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true }),
  };
}

test("two roots with a pool and uids each stand side by side", async () => {
  await using host = await makeHost();
  await claim("aaaaaa", host.one, false, host.claims);
  await claim("bbbbbb", host.two, false, host.claims);
  assert.deepEqual((await readdir(host.claims)).sort(), ["aaaaaa.json", "bbbbbb.json"]);
});

test("an overlapping pool or uid range is refused by its owner and the setting, and leaves no claim", async () => {
  await using host = await makeHost();
  await claim("aaaaaa", host.one, false, host.claims);
  const pool = { ...host.two, cidr: "10.200.4.0/24" };
  await assert.rejects(claim("bbbbbb", pool, false, host.claims), (error: Error) => {
    assert.ok(error.message.includes(host.one.root));
    assert.match(error.message, /10\.200\.4\.0\/24.*10\.200\.0\.0\/16.*FIRECRACKER_HOST_NETWORK_CIDR/);
    return true;
  });
  const uids = { ...host.two, uid_base: 232765 };
  await assert.rejects(
    claim("bbbbbb", uids, false, host.claims),
    /200000 to 232765.*FIRECRACKER_HOST_UID_BASE to 232766/,
  );
  assert.deepEqual(await readdir(host.claims), ["aaaaaa.json"]);
  await claim("bbbbbb", { ...uids, uid_base: 232766 }, false, host.claims);
});

test("the claim of a root that is gone is taken over", async () => {
  await using host = await makeHost();
  await claim("aaaaaa", host.one, false, host.claims);
  await rm(host.one.root, { recursive: true });
  await claim("bbbbbb", { ...host.two, cidr: host.one.cidr }, false, host.claims);
  assert.deepEqual(await readdir(host.claims), ["bbbbbb.json"]);
});

test("a root renews its own claim and may change it, but not under machines that run", async () => {
  await using host = await makeHost();
  await claim("aaaaaa", host.one, false, host.claims);
  await claim("aaaaaa", host.one, true, host.claims);
  const changed = { ...host.one, cidr: "10.202.0.0/16" };
  await assert.rejects(claim("aaaaaa", changed, true, host.claims), /10\.200\.0\.0\/16.*back/);
  await claim("aaaaaa", changed, false, host.claims);
  assert.match(await readFile(join(host.claims, "aaaaaa.json"), "utf8"), /10\.202\.0\.0/);
});

test("a change that is refused keeps the claim as it was", async () => {
  await using host = await makeHost();
  await claim("aaaaaa", host.one, false, host.claims);
  await claim("bbbbbb", host.two, false, host.claims);
  await assert.rejects(claim("bbbbbb", { ...host.two, cidr: host.one.cidr }, false, host.claims));
  assert.match(await readFile(join(host.claims, "bbbbbb.json"), "utf8"), /10\.201\.0\.0/);
});

test("a claim that cannot be read stands in nobody's way, and giving back twice is fine", async () => {
  await using host = await makeHost();
  await claim("aaaaaa", host.one, false, host.claims);
  await writeFile(join(host.claims, "cccccc.json"), "{ torn");
  await claim("bbbbbb", host.two, false, host.claims);
  unclaim("bbbbbb", host.claims);
  unclaim("bbbbbb", host.claims);
  assert.deepEqual((await readdir(host.claims)).sort(), ["aaaaaa.json", "cccccc.json"]);
});

test("the same pool in two network namespaces is no clash, the same uids are", () => {
  const other = claimBy("/other", { network_namespace: "net:[2]", uid_base: 900000 });
  assert.equal(claimClash(claimBy("/one"), other), undefined);
  assert.match(claimClash(claimBy("/one"), { ...other, uid_base: 200001 }) ?? "", /UID_BASE/);
});
