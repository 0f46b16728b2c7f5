import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { run } from "../../src/system/run.ts";
import { cloneDisk, makeDisk, TestGuest } from "./guest.ts";
import { makeIdentity, type TestIdentity } from "./identity.ts";
import { TestSlot } from "./slot.ts";
import { assertBecomes } from "./unique.ts";

const IMAGE = "debian-slim";

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
  /** What the clone becomes while it runs. */
  let wokenIdentity: TestIdentity;
  const logins: Login[] = [];
  /** Callers of the webhook that gave up or got their answer. */
  let gone = 0;
  let letWebhookAnswer: () => void;

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
    const [file, ...args] = slot.inside([process.execPath, program]);
    const listener = spawn(file, args, { stdio: ["pipe", "pipe", "inherit"] });
    stack.defer(() => void listener.kill("SIGKILL"));
    letWebhookAnswer = () => void listener.stdin.write("answer\n");
    const lines = createInterface({ input: listener.stdout });
    const { promise, resolve } = Promise.withResolvers<void>();
    lines.on("line", (line) => {
      const said = JSON.parse(line) as Login | { listening: true } | { gone: true };
      if ("listening" in said) resolve();
      else if ("gone" in said) gone += 1;
      else logins.push(said);
    });
    await promise;
  }

  /** Resolves when the webhook has heard of `count` logins. */
  async function heard(count: number): Promise<void> {
    const limit = performance.now() + 20_000;
    while (logins.length < count && performance.now() < limit) await sleep(50);
    assert.equal(logins.length, count);
  }

  test("a login does not wait for the webhook's answer", async () => {
    await guest.ssh("true");
    assert.equal(gone, 0, "the call was over before the login was");
    await heard(1);
    letWebhookAnswer();
    const [login] = logins;
    assert.ok(login);
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
    await guest.ssh("true", identity.daemonKeyPath);
    await guest.ssh("while pidof curl >/dev/null; do sleep 0.2; done");
    await heard(2);
  });

  test("the guest has the identity of its seed, and the token is root's alone", async () => {
    const found = await guest.ask({
      hostname: "hostname",
      machineId: "cat /etc/machine-id",
      // IPv4 alone: the other half of the question would go to the resolver, which is none here.
      hosts: "getent ahostsv4 first-machine | head -n 1",
      resolv: "cat /etc/resolv.conf",
      hostKey: "stat -c '%a %u' /etc/ssh/ssh_host_ed25519_key",
      webhook: "stat -c '%a %u' /etc/computer-host/login-webhook",
    });
    assert.deepEqual(found, {
      hostname: identity.hostname,
      machineId: identity.machineId,
      hosts: "127.0.1.1       STREAM first-machine",
      resolv: "nameserver 192.0.2.53",
      hostKey: "600 0",
      webhook: "600 0",
    });
    assert.match(guest.console(), /^computer-host: identity applied$/m);
  });

  test("a disk larger than its filesystem grows, and the network is up, before anything of the image runs", async () => {
    const found = await guest.ask({
      sizeMib: "df -BM --output=size / | tail -n 1 | tr -d ' M'",
      address: "ip -br addr show dev eth0",
      route: "ip route show default",
      mtu: "cat /sys/class/net/eth0/mtu",
    });
    assert.ok(Number(found.sizeMib) > 800, `the root filesystem has ${found.sizeMib} MiB of 900`);
    assert.match(guest.console(), /^computer-host: grew the root filesystem from 512 to 900 MiB$/m);
    assert.match(found.address, /^eth0 +UP +172\.16\.0\.2\/30/);
    assert.match(found.route, /^default via 172\.16\.0\.1 dev eth0/);
    assert.equal(found.mtu, "1500");
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
    const found = await clone.ask({
      journal: "dmesg | grep -o 'EXT4-fs (vda): recovery complete'",
      kept: "cat /root/kept",
      hostname: "hostname",
      machineId: "cat /etc/machine-id",
      resolv: "cat /etc/resolv.conf",
      hosts: "grep -o second-machine /etc/hosts",
      movedConfig: "grep -o second-machine /srv/moved/guest-config.json",
      hostKeys: "ls /etc/ssh/ssh_host_*_key",
      dbusId: "cat /var/lib/dbus/machine-id 2>/dev/null || echo gone",
    });
    assert.deepEqual(found, {
      journal: "EXT4-fs (vda): recovery complete",
      kept: "kept",
      hostname: cloneIdentity.hostname,
      machineId: cloneIdentity.machineId,
      resolv: "nameserver 192.0.2.53",
      hosts: "second-machine",
      movedConfig: "second-machine",
      hostKeys: "/etc/ssh/ssh_host_ed25519_key",
      dbusId: "gone",
    });
  });

  test("the former machine's key does not open its clone", async () => {
    await assert.rejects(clone.ssh("true", identity.keyPath), /Permission denied/);
  });

  test("a running machine becomes another one, down to its clock and its random numbers", async () => {
    await clone.ssh(
      [
        "date -s '2001-02-03 04:05:06'",
        "touch /etc/ssh/ssh_host_rsa_key /var/lib/systemd/random-seed",
        "mkdir /srv/hosts && mv /etc/hosts /srv/hosts/ && ln -s /srv/hosts/hosts /etc/hosts",
        "bash -c 'exec 3<>/dev/tcp/172.16.0.1/8080; exec sleep 1000' </dev/null >/dev/null 2>&1 &",
        "while ! grep -q ':1F90 01' /proc/net/tcp; do sleep 0.1; done",
      ].join("\n"),
    );
    wokenIdentity = await makeIdentity(folder, "third-machine");
    await assertBecomes(clone, wokenIdentity, {
      connections: "1 reset by ss",
    });
    const found = await clone.ask({
      kept: "cat /root/kept",
      hosts: "stat -c %F /etc/hosts; grep -o third-machine /etc/hosts",
      movedConfig: "grep -o third-machine /srv/moved/guest-config.json",
      hostKeys: "ls /etc/ssh/ssh_host_*_key",
      randomSeed: "ls /var/lib/systemd/random-seed 2>&1 | grep -o 'No such file'",
      traces: "ls -d /run/computer-host* /tmp/computer-host* 2>/dev/null || echo none",
    });
    assert.deepEqual(found, {
      kept: "kept",
      hosts: "regular file\nthird-machine",
      movedConfig: "third-machine",
      hostKeys: "/etc/ssh/ssh_host_ed25519_key",
      randomSeed: "No such file",
      traces: "none",
    });
    await assert.rejects(clone.ssh("true", cloneIdentity.keyPath), /Permission denied/);
  });

  test("it becomes another one with busybox for all tools, too, and says what that cannot do", async () => {
    const hidden = "cat cut date grep head mkdir mktemp mv rm sync tar wc perl ss chattr blockdev";
    await clone.ssh(
      [
        "busybox ln -sf busybox /bin/sh",
        `for tool in ${hidden}; do path=$(command -v $tool) && busybox mv "$path" "$path.hidden"; done`,
        "busybox date -s '2001-02-03 04:05:06'",
      ].join("\n"),
    );
    wokenIdentity = await makeIdentity(folder, "fourth-machine");
    const receipt = await clone.become(wokenIdentity);
    const randomness = receipt.find(({ item }) => item === "randomness");
    assert.match(randomness?.how ?? "", /neither perl nor python3 could credit them/);
    assert.deepEqual(
      receipt.filter(({ done }) => !done),
      [randomness],
    );
    await clone.ssh(
      `for tool in ${hidden}; do path=$(command -v $tool.hidden) && busybox mv "$path" "$(busybox dirname "$path")/$tool"; done; ln -sf dash /bin/sh`,
    );
    const found = await clone.ask({
      machineId: "cat /etc/machine-id",
      marker: "cat /var/lib/computer-host/seed",
      movedConfig: "grep -o fourth-machine /srv/moved/guest-config.json",
    });
    assert.deepEqual(found, {
      machineId: wokenIdentity.machineId,
      marker: wokenIdentity.seedSha256,
      movedConfig: "fourth-machine",
    });
  });

  test("a reboot of it with its new seed changes nothing", async () => {
    await clone.ssh("echo renamed-again >/etc/hostname");
    await clone.reboot();
    const again = stack.use(
      await TestGuest.boot({
        slot,
        image: IMAGE,
        disk: join(folder, "clone"),
        folder,
        identity: wokenIdentity,
      }),
    );
    await again.ready();
    assert.equal(
      await again.ssh("hostname; cat /etc/machine-id"),
      `renamed-again\n${wokenIdentity.machineId}`,
    );
    assert.doesNotMatch(again.console(), /identity applied/);
  });
});
