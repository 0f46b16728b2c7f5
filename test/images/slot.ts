import { run, type RunResult } from "../../src/system/run.ts";

let made = 0;

/**
 * A network namespace with a tap and no way out: the guest reaches its gateway and nothing else. Removed with
 * all that is in it when it is disposed of.
 */
export class TestSlot implements AsyncDisposable {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  static async make(): Promise<TestSlot> {
    made += 1;
    const slot = new TestSlot(`ch-image-${process.pid}-${made}`);
    await run(["ip", "netns", "add", slot.name]);
    const batch = [
      "tuntap add tap0 mode tap",
      "addr add 172.16.0.1/30 dev tap0",
      "link set tap0 up",
      "link set lo up",
    ];
    await run(["ip", "-n", slot.name, "-batch", "-"], { input: `${batch.join("\n")}\n` });
    return slot;
  }

  /** The argv that runs a command inside. */
  inside(argv: readonly string[]): [string, ...string[]] {
    return ["ip", "netns", "exec", this.name, ...argv];
  }

  /** Whether an SSH server answers at the guest's address within a second. */
  async sshAnswers(): Promise<boolean> {
    const probe = "exec 3<>/dev/tcp/172.16.0.2/22 && head -c 4 <&3";
    const { stdout }: RunResult = await run(this.inside(["timeout", "1", "bash", "-c", probe]), {
      okCodes: [0, 1, 124],
    });
    return stdout === "SSH-";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run(["ip", "netns", "del", this.name]);
  }
}
