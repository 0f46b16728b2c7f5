import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../../src/contract/errors.ts";
import { machineId } from "../../../src/contract/ids.ts";
import type { ForkMachine } from "../../../src/contract/machine.ts";
import { familyOf } from "../../../src/host/fork-request.ts";

const source = machineId("source");

const refusalOf = (request: ForkMachine): unknown => {
  try {
    familyOf(source, request);
  } catch (error) {
    assert.ok(error instanceof AppError, String(error));
    return error.code;
  }
  return undefined;
};

test("a fork names one child, or several by number", () => {
  assert.deepEqual(familyOf(source, { machine_id: "kid" }).children, ["kid"]);
  assert.deepEqual(familyOf(source, { count: 3, id_prefix: "kid-" }).children, ["kid-1", "kid-2", "kid-3"]);
  const many = familyOf(source, { count: 64, id_prefix: "a".repeat(60) }).children;
  assert.equal(many.at(-1)?.length, 62, "the longest names are names");
});

test("a fork that says neither, both or half of it is refused", () => {
  for (const request of [{}, { count: 2 }, { id_prefix: "kid-" }])
    assert.equal(refusalOf(request), "bad_request");
  for (const request of [
    { machine_id: "kid", count: 2, id_prefix: "kid-" },
    { machine_id: "kid", count: 1 },
    { machine_id: "kid", id_prefix: "kid-" },
  ])
    assert.equal(refusalOf(request), "contradiction");
});

test("a machine is no fork of itself, and one hostname is not for several", () => {
  assert.equal(refusalOf({ machine_id: "source" }), "contradiction");
  assert.equal(refusalOf({ count: 2, id_prefix: "kid-", guest_config: { hostname: "h" } }), "contradiction");
  assert.equal(refusalOf({ count: 1, id_prefix: "kid-", guest_config: { hostname: "h" } }), undefined);
});

test("the same fork has the same digest, with or without its defaults, and any other has another", () => {
  const digest = (request: ForkMachine, of = source) => familyOf(of, request).request_sha256;
  const first = digest({ count: 2, id_prefix: "kid-" });
  assert.equal(digest({ count: 2, id_prefix: "kid-", ready: "ssh", guest_config: {} }), first);
  const others = [
    digest({ count: 3, id_prefix: "kid-" }),
    digest({ count: 2, id_prefix: "kid-", ready: "started" }),
    digest({ count: 2, id_prefix: "kid-", guest_config: { authorized_keys: ["ssh-ed25519 A"] } }),
    digest({ count: 2, id_prefix: "kid-" }, machineId("other")),
  ];
  assert.equal(new Set([first, ...others]).size, 5);
});
