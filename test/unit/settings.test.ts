import assert from "node:assert/strict";
import { test } from "node:test";
import { parseDuration, readSettings, VARIABLES } from "../../src/settings.ts";

test("with nothing set, every setting has its default", () => {
  const { settings, warnings } = readSettings({});
  assert.equal(settings.rootDir, "/var/lib/computer-host");
  assert.equal(settings.firecrackerPath, undefined);
  assert.equal(settings.readyTimeoutMs, 60_000);
  assert.deepEqual(settings.fileUrlDirs, [settings.imageDir]);
  assert.deepEqual(warnings, []);
});

test("an unknown variable with our prefix is a warning, others are nobody's business", () => {
  const { warnings } = readSettings({ FIRECRACKER_HOST_COLOUR: "red", HOME: "/root" });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? "", /FIRECRACKER_HOST_COLOUR/);
});

test("a bad value is an error that names the variable, and all bad ones are named at once", () => {
  const bad: Record<string, string> = {
    FIRECRACKER_HOST_ROOT_DIR: "relative",
    FIRECRACKER_HOST_DISK_CLONE_MODE: "maybe",
    FIRECRACKER_HOST_DRIVE_IO_ENGINE: "sync",
    FIRECRACKER_HOST_ENABLE_PCI: "perhaps",
    FIRECRACKER_HOST_RECONCILE_INTERVAL: "5",
    FIRECRACKER_HOST_NETWORK_CIDR: "10.0.0.0/40",
    FIRECRACKER_HOST_EGRESS_ALLOW: "10.0.0.0/8,everything",
    FIRECRACKER_HOST_DNS: "resolver.example",
    FIRECRACKER_HOST_UID_BASE: "0",
    FIRECRACKER_HOST_MEMORY_OVERCOMMIT: "-1",
    FIRECRACKER_HOST_POOL_SIZE: "many",
    FIRECRACKER_HOST_READY_TIMEOUT: "soon",
    FIRECRACKER_HOST_DEFAULT_IMAGE: "../etc",
    FIRECRACKER_HOST_HTTP_ADDR: "here",
    FIRECRACKER_HOST_LOG_LEVEL: "loud",
    GUEST_LOGIN_CA_PUBLIC_KEY: "not a key\nat all",
  };
  for (const [name, value] of Object.entries(bad))
    assert.throws(() => readSettings({ [name]: value }), new RegExp(name));
  assert.throws(
    () => readSettings(bad),
    (error: Error) => Object.keys(bad).every((name) => error.message.includes(name)),
  );
});

test("durations are read as Go writes them", () => {
  assert.equal(parseDuration("5s"), 5000);
  assert.equal(parseDuration("1m30s"), 90_000);
  assert.equal(parseDuration("250ms"), 250);
  assert.equal(parseDuration("0.5h"), 1_800_000);
  assert.equal(parseDuration("1.5ms"), 2, "timers refuse fractions");
  assert.equal(parseDuration("1.001s"), 1001);
  for (const text of ["", "5", "s", "-5s", "5 s", "0s", "48h"])
    assert.throws(() => parseDuration(text), text);
});

test("lists and addresses are read", () => {
  const { settings } = readSettings({
    FIRECRACKER_HOST_EGRESS_ALLOW: "10.0.0.0/8, 192.168.1.0/24",
    FIRECRACKER_HOST_HTTP_ADDR: "127.0.0.1:8080",
    FIRECRACKER_HOST_FILE_URL_DIRS: "/a,/b/",
  });
  assert.deepEqual(settings.egressAllow, ["10.0.0.0/8", "192.168.1.0/24"]);
  assert.deepEqual(settings.httpAddress, { host: "127.0.0.1", port: 8080 });
  assert.deepEqual(settings.fileUrlDirs, ["/a", "/b"]);
});

test("variables keep the names that clients of the contract know", () => {
  const names: readonly string[] = Object.values(VARIABLES).map(({ name }) => name);
  for (const name of [
    "FIRECRACKER_HOST_ROOT_DIR",
    "FIRECRACKER_BINARY_PATH",
    "JAILER_BINARY_PATH",
    "FIRECRACKER_HOST_EGRESS_INTERFACE",
  ]) {
    assert.ok(names.includes(name), name);
  }
});
