import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Machine } from "../../src/contract/machine.ts";
import { RunError } from "../../src/system/run.ts";
import type { CommandOptions, Lab } from "./lab.ts";

const ROOT = "/var/lib/computer-host";
const SOCKET = `${ROOT}/firecracker-host.sock`;
const START_TIMEOUT_MS = 120_000;
/** An emulated processor that emulates another's virtualisation is slow: everything gets its time. */
const CALL_TIMEOUT_MS = 300_000;
/** OPENSSL_ia32cap: an emulated processor computes digests faster without its vector instructions. */
const SETTINGS = {
  OPENSSL_ia32cap: "0",
  FIRECRACKER_HOST_READY_TIMEOUT: "240s",
  FIRECRACKER_HOST_POOL_SIZE: "2",
  // Each look at the host takes such a processor seconds.
  FIRECRACKER_HOST_RECONCILE_INTERVAL: "60s",
} as const;

interface Answer {
  readonly status: number;
  // The answers are what the tests examine, field by field.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
}

/** The daemon as systemd's service in the lab, and a client beside it. */
export class Service {
  readonly lab: Lab;
  /** The public half of the key that logs in to guests. */
  readonly publicKey: string;

  private constructor(lab: Lab, publicKey: string) {
    this.lab = lab;
    this.publicKey = publicKey;
  }

  /** Puts the daemon, the image, the unit and the settings where a package would, and a key for guests into /root. */
  static async install(lab: Lab, env: Readonly<Record<string, string>> = {}): Promise<Service> {
    await lab.run(
      [
        "set -e",
        "mkdir -p /opt/computer-host /var/cache/computer-host/images /etc/computer-host",
        // In place rather than copied, which takes an emulated processor its time; and read-only, as the payload is.
        "mount --bind /lab/opt /opt/computer-host",
        "mount --bind /lab/images /var/cache/computer-host/images",
        "cp /opt/computer-host/computer-host.service /etc/systemd/system/",
        "ssh-keygen -q -t ed25519 -N '' -C '' -f /root/guest_key",
        "systemctl daemon-reload",
      ].join("\n"),
    );
    const service = new Service(lab, await lab.print("cat /root/guest_key.pub"));
    await service.configure(env);
    return service;
  }

  /** Writes the service's settings. They count from its next start. */
  async configure(env: Readonly<Record<string, string>>): Promise<void> {
    const lines = Object.entries({ ...SETTINGS, ...env }).map(([name, value]) => `${name}=${value}\n`);
    await this.lab.run("cat >/etc/computer-host/computer-host.env", { input: lines.join("") });
  }

  /** Runs `systemctl <verb> computer-host`. */
  async control(verb: "start" | "stop" | "restart"): Promise<void> {
    await this.lab.run(`systemctl ${verb} computer-host`, { timeoutMs: 150_000 });
  }

  /** Waits until the daemon answers, and returns what GET /health says. Throws with the journal's end when it does not. */
  async waitServing(): Promise<Answer["body"]> {
    const end = performance.now() + START_TIMEOUT_MS;
    for (;;) {
      try {
        const { status, body } = await this.call("GET", "/health");
        assert.equal(status, 200);
        return body;
      } catch (cause) {
        if (performance.now() > end)
          throw new Error(`the daemon does not serve:\n${await this.journal()}`, { cause });
      }
      await sleep(1000);
    }
  }

  /** The end of the service's journal, as a person reads it. */
  journal(): Promise<string> {
    return this.lab.print(
      // The kernel's word is what tells a guest that memory ran out for from one that died.
      "systemctl status --no-pager -l computer-host; journalctl -u computer-host -n 60 --no-pager -o cat; dmesg | tail -n 25; free -m",
      {
        okCodes: [0, 1, 3],
      },
    );
  }

  /** One call through curl. */
  async call(method: string, path: string, body?: object): Promise<Answer> {
    const { stdout } = await this.lab.run(
      `curl -sS --max-time ${CALL_TIMEOUT_MS / 1000} --unix-socket ${SOCKET} -X ${method} -w '\\n%{http_code}' ` +
        `-H 'content-type: application/json' ${body === undefined ? "" : "--data-binary @- "}http://localhost${path}`,
      { timeoutMs: CALL_TIMEOUT_MS, ...(body === undefined ? {} : { input: JSON.stringify(body) }) },
    );
    const end = stdout.lastIndexOf("\n");
    const text = stdout.slice(0, end);
    return { status: Number(stdout.slice(end + 1)), body: text === "" ? undefined : JSON.parse(text) };
  }

  /** The same, for a call that must end with `status`; the failure shows the journal's end. */
  async expect(status: number, method: string, path: string, body?: object): Promise<Answer["body"]> {
    const answer = await this.call(method, path, body);
    if (answer.status !== status)
      assert.fail(
        `${method} ${path} answered ${answer.status}: ${JSON.stringify(answer.body, null, 1)}\n${await this.journal()}`,
      );
    return answer.body;
  }

  /** Creates a machine that `guest_key` may log in to. */
  async create(id: string, body: object = {}): Promise<Machine> {
    const guest_config = { authorized_keys: [this.publicKey] };
    const { machine } = await this.expect(201, "POST", "/machines", {
      machine_id: id,
      memory_mib: 256,
      guest_config,
      ...body,
    });
    return machine;
  }

  /** What a command in a guest printed, over SSH that accepts only the host key which the daemon named. */
  async inGuest(machine: Machine, command: string, options: CommandOptions = {}): Promise<string> {
    assert.ok(machine.runtime_host !== undefined && machine.guest_ssh_host_public_key !== undefined);
    const known = `/run/known-${machine.id}`;
    await this.lab.run(`cat >${known}`, {
      input: `${machine.runtime_host} ${machine.guest_ssh_host_public_key}\n`,
    });
    return await this.lab.print(
      `ssh -i /root/guest_key -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=${known} ` +
        `-o ConnectTimeout=30 -o LogLevel=ERROR ${machine.guest_user}@${machine.runtime_host} '${command}'`,
      { timeoutMs: 120_000, ...options },
    );
  }

  /** Asserts that the host in the lab holds exactly what the daemon's state says. */
  async assertMatchesState(): Promise<void> {
    const judge = `/opt/computer-host/node /lab/judge.mjs ${ROOT} ${SETTINGS.FIRECRACKER_HOST_POOL_SIZE}`;
    assert.equal(await this.lab.print(judge, { timeoutMs: 120_000 }), "");
  }

  /** True while the process lives. */
  async lives(pid: number): Promise<boolean> {
    try {
      await this.lab.run(`kill -0 ${pid}`);
      return true;
    } catch (error) {
      if (error instanceof RunError && error.code === 1) return false;
      throw error;
    }
  }
}
