import assert from "node:assert/strict";
import { test } from "node:test";
import { chooseResolvers, FALLBACK_RESOLVERS } from "../../../src/network/resolvers.ts";

const conf = (...addresses: string[]) => addresses.map((address) => `nameserver ${address}\n`).join("");
const host = (...addresses: string[]) => ({ host: conf(...addresses), upstreams: "" });

test("guests get the host's resolvers, IPv4 ones, three at most and none twice", () => {
  assert.deepEqual(
    chooseResolvers([], host("10.0.0.2", "fd00::1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5")),
    {
      resolvers: ["10.0.0.2", "10.0.0.3", "10.0.0.4"],
      warnings: [],
    },
  );
  const commented = {
    host: "# nameserver 1.2.3.4\nsearch example.org\n\tnameserver  10.0.0.9 \n",
    upstreams: "",
  };
  assert.deepEqual(chooseResolvers([], commented).resolvers, ["10.0.0.9"]);
});

test("a resolver on loopback gives way to those behind it", () => {
  const files = { host: conf("127.0.0.53"), upstreams: conf("192.168.1.1", "fe80::1", "192.168.1.2") };
  assert.deepEqual(chooseResolvers([], files), { resolvers: ["192.168.1.1", "192.168.1.2"], warnings: [] });
});

test("a host whose resolvers no guest can reach gives public ones, with a warning", () => {
  for (const files of [
    host(),
    host("127.0.0.1"),
    host("::1"),
    host("172.16.0.2"),
    { host: "nonsense", upstreams: "" },
  ]) {
    const { resolvers, warnings } = chooseResolvers([], files);
    assert.deepEqual(resolvers, FALLBACK_RESOLVERS);
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ["resolvers_public"],
    );
  }
});

test("the setting comes before the host's, and one that no guest could use is refused by name", () => {
  assert.deepEqual(chooseResolvers(["9.9.9.10"], host("10.0.0.2")).resolvers, ["9.9.9.10"]);
  for (const unusable of [
    "127.0.0.1",
    "::1",
    "2001:db8::1",
    "0.0.0.0",
    "224.0.0.1",
    "172.16.0.1",
    "resolver",
    "",
  ]) {
    assert.throws(() => chooseResolvers(["9.9.9.10", unusable], host()), /FIRECRACKER_HOST_DNS/, unusable);
  }
});
