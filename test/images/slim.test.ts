import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { run } from "../../src/system/run.ts";
import { cloneDisk, makeDisk, TestGuest } from "./guest.ts";
import { makeIdentity, type TestIdentity } from "./identity.ts";
import { TestSlot } from "./slot.ts";

const IMAGE = "debian-slim";
const WEBHOOK_ANSWERS_AFTER_MS = 20_000;

interface Login {
  readonly method: string;
  readonly url: string;
  readonly authorization: string;
  readonly type: string;
  readonly body: string;
}

/** One machine's life: each test goes on from where the one before left the disk. */
describe("debian-slim without a daemon", () => {
  const stack = new AsyncDisposableStack();
  let folder: string;
  let slot: TestSlot;
  let disk: string;
  let identity: TestIdentity;
  let guest: TestGuest;
  /** Another machine, from the disk of the first one after a power cut. */
  let clone: TestGuest;
  let cloneIdentity: TestIdentity;
  const logins: Login[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "ch-images-"));
    stack.defer(() => rm(folder, { recursive: true }));
    slot = stack.use(await TestSlot.make());
    disk = await makeDisk(IMAGE, join(folder, "disk"), 900);
    identity = await makeIdentity(folder, "first-machine", {
      login_webhook: { url: "http://172.16.0.1:8080/logins?m=1", bearer_token: 'secret"\\token' },
    });
    await listen();
    guest = stack.use(await TestGuest.boot({ slot, image: IMAGE, disk, folder, identity }));
    await guest.ready();
  });

  after(() => stack.disposeAsync());

  /** Starts the webhook inside the slot and collects what it is told. */
  async function listen(): Promise<void> {
    const program = join(import.meta.dirname, "webhook-listener.ts");
    const [file, ...args] = slot.inside([process.execPath, program, String(WEBHOOK_ANSWERS_AFTER_MS)]);
    const listener = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    stack.defer(() => void listener.kill("SIGKILL"));
    const lines = createInterface({ input: listener.stdout });
    const { promise, resolve } = Promise.withResolvers<void>();
    lines.on("line", (line) => {
      const said = JSON.parse(line) as Login | { listening: true };
      if ("listening" in said) resolve();
      else logins.push(said);
    });
    await promise;
  }

  test("the guest has the identity of its seed", async () => {
    assert.equal(await guest.ssh("hostname"), identity.hostname);
    assert.equal(await guest.ssh("cat /etc/machine-id"), identity.machineId);
    assert.match(await guest.ssh("getent hosts first-machine"), /^127\.0\.1\.1 +first-machine$/);
    assert.equal(await guest.ssh("cat /etc/resolv.conf"), "nameserver 192.0.2.53");
    assert.equal(await guest.ssh("stat -c '%a %u' /etc/ssh/ssh_host_ed25519_key"), "600 0");
    assert.match(guest.console(), /^computer-host: identity applied$/m);
  });

  test("a disk larger than its filesystem grows at boot", async () => {
    const sizeMib = Number(await guest.ssh("df -BM --output=size / | tail -n 1 | tr -d ' M'"));
    assert.ok(sizeMib > 800, `the root filesystem has ${sizeMib} MiB of 900`);
    assert.match(guest.console(), /^computer-host: grew the root filesystem from 512 to 900 MiB$/m);
  });

  test("the network is up with the address that every guest has", async () => {
    assert.match(await guest.ssh("ip -br addr show dev eth0"), /^eth0 +UP +172\.16\.0\.2\/30/);
    assert.match(await guest.ssh("ip route show default"), /^default via 172\.16\.0\.1 dev eth0/);
    assert.equal(await guest.ssh("cat /sys/class/net/eth0/mtu"), "1500");
  });

  test("a login tells the webhook and does not wait for its answer", async () => {
    const before = logins.length;
    const started = performance.now();
    await guest.ssh("true");
    const tookMs = performance.now() - started;
    assert.ok(tookMs < WEBHOOK_ANSWERS_AFTER_MS / 2, `the login took ${tookMs} ms`);
    const limit = performance.now() + 15_000;
    while (logins.length <= before && performance.now() < limit) await guest.ssh("sleep 0.2");
    const login = logins.at(before);
    assert.ok(login, "the webhook heard of no login");
    assert.equal(login.method, "POST");
    assert.equal(login.url, "/logins?m=1");
    assert.equal(login.authorization, 'Bearer secret"\\token');
    assert.equal(login.type, "application/json");
    const body = JSON.parse(login.body) as Record<string, string>;
    assert.deepEqual(Object.keys(body).sort(), ["hostname", "remote_host", "time", "user"]);
    assert.equal(body["user"], "root");
    assert.equal(body["remote_host"], "172.16.0.1");
    assert.equal(body["hostname"], identity.hostname);
    assert.ok(Math.abs(Date.parse(body["time"] ?? "") - Date.now()) < 120_000, `the time is ${body["time"]}`);
  });

  test("the daemon's own logins are not told to the webhook", async () => {
    // The calls of the logins before this one may still be on their way.
    await guest.ssh("while pgrep -x curl >/dev/null 2>&1 || pidof curl >/dev/null; do sleep 0.2; done; true");
    const before = logins.length;
    await guest.ssh("sleep 2", join(folder, "first-machine.daemon-key"));
    assert.equal(logins.length, before);
  });

  test("nobody else in the guest reads the webhook's token", async () => {
    assert.equal(await guest.ssh("stat -c %a /etc/computer-host/login-webhook"), "600");
    const all = await guest.ssh("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'");
    assert.doesNotMatch(all, /secret/);
  });

  test("a clean shutdown ends the VMM and leaves a clean filesystem", async () => {
    await guest.ssh("echo renamed >/etc/hostname; echo unsynced >/root/note");
    await guest.reboot();
    const { stdout } = await run(["dumpe2fs", "-h", disk]);
    assert.match(stdout, /^Filesystem state: +clean$/m);
    assert.doesNotMatch(stdout, /needs_recovery/);
  });

  test("the same seed is applied once: the next boot keeps what the user changed", async () => {
    guest = stack.use(await TestGuest.boot({ slot, image: IMAGE, disk, folder, identity }));
    await guest.ready();
    assert.equal(await guest.ssh("hostname; cat /root/note"), "renamed\nunsynced");
    assert.doesNotMatch(guest.console(), /identity applied/);
  });

  test("a disk cloned in mid-write comes up with its files and the new identity", async () => {
    // What a user of the old disk may have made of the paths that a seed writes.
    await guest.ssh(
      [
        "mkdir /srv/moved && mv /etc/computer-host/* /srv/moved/ && rmdir /etc/computer-host",
        "ln -s /srv/moved /etc/computer-host",
        "ln -sf /nowhere/resolv.conf /etc/resolv.conf",
        "rm /etc/hosts && mkdir /etc/hosts && touch /etc/hosts/in-the-way",
        "mkdir -p /var/lib/dbus && echo old >/var/lib/dbus/machine-id",
        "echo kept >/root/kept && sync",
        "(while :; do dd if=/dev/urandom of=/root/busy bs=64k count=64 conv=fsync; done) >/dev/null 2>&1 & sleep 1.5",
      ].join("\n"),
    );
    await guest.kill();
    cloneIdentity = await makeIdentity(folder, "second-machine");
    const cloned = await cloneDisk(disk, join(folder, "clone"));
    clone = stack.use(
      await TestGuest.boot({ slot, image: IMAGE, disk: cloned, folder, identity: cloneIdentity }),
    );
    await clone.ready();
    assert.match(await clone.ssh("dmesg"), /EXT4-fs \(vda\): recovery complete/);
    assert.equal(await clone.ssh("cat /root/kept"), "kept");
    assert.equal(await clone.ssh("hostname"), cloneIdentity.hostname);
    assert.equal(await clone.ssh("cat /etc/machine-id"), cloneIdentity.machineId);
    assert.equal(await clone.ssh("cat /etc/resolv.conf"), "nameserver 192.0.2.53");
    assert.match(await clone.ssh("cat /etc/hosts"), /second-machine/);
    assert.match(await clone.ssh("cat /srv/moved/guest-config.json"), /second-machine/);
    assert.equal(await clone.ssh("ls /etc/ssh/ssh_host_*_key"), "/etc/ssh/ssh_host_ed25519_key");
    assert.equal(await clone.ssh("cat /var/lib/dbus/machine-id 2>/dev/null || echo gone"), "gone");
  });

  test("the former machine's key does not open its clone", async () => {
    await assert.rejects(clone.ssh("true", identity.keyPath), /Permission denied/);
  });
});
