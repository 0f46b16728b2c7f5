import { randomBytes } from "node:crypto";
import { AppError, messageOf } from "../../contract/errors.ts";
import { RECEIPT_ITEMS, type ReceiptEntry } from "../../contract/machine.ts";
import type { Log } from "../../system/log.ts";
import { logIn } from "../readiness.ts";
import { SEED_PATHS } from "../seed.ts";
import { seedFiles, seedText, withoutPadding } from "../seed-files.ts";
import type { SshTarget } from "../ssh.ts";
import type { CommandEnd } from "../ssh-command.ts";
import type { NewSeed } from "../types.ts";
import { UNIQUE_SCRIPT } from "./script.ts";

/** A login shell of any kind hands over to the one that the script is written for. */
const COMMAND = `exec /bin/sh -c '${UNIQUE_SCRIPT.replaceAll("'", `'\\''`)}'`;

/** Without one of these the guest is still, at least in part, the one that it was. */
const IDENTITY: readonly ReceiptEntry["item"][] = [
  "hostname",
  "machine_id",
  "ssh_host_key",
  "authorized_keys",
];

/** More than what a reseed of the kernel's generator takes in. */
const RANDOM_BYTES = 64;
/** A clock that is further from the host's after it was set was not set. */
const CLOCK_TOLERANCE_MS = 2_000;
/** What a guest says is shown to clients: so much of it, and nothing but printable ASCII. */
const WORDS_LIMIT = 200;

/**
 * Logs in once at a woken guest by what it was, and has it become what the seed says. Returns an entry for each of
 * RECEIPT_ITEMS, in their order. Throws `guest_not_ready`, or the signal's reason when that is an `AppError`.
 */
export async function makeUnique(
  frozen: SshTarget,
  seed: NewSeed,
  signal: AbortSignal,
  log: Log,
): Promise<readonly ReceiptEntry[]> {
  const machineId = seedText(await seedFiles(seed.bytes), SEED_PATHS.machineId);
  // The frozen guest does not change any more: with another key it is another guest.
  using connection = await logIn(frozen, signal, log, ["other_host_key", "login_refused"]);
  const answers = new Answers(seed, machineId);
  let end: CommandEnd;
  try {
    end = await connection.run(COMMAND, signal, { onLine: (line) => answers.take(line) });
  } catch (error) {
    if (error instanceof AppError) throw error;
    throw refusal("did not become a machine of its own in time", messageOf(error), answers.receipt(), error);
  }
  const receipt = answers.receipt();
  log.debug({ host: frozen.host, end, receipt }, "the woken guest was made another one");
  if (!answers.complete) {
    throw refusal("did not become a machine of its own", `it stopped halfway (${wordsFor(end)})`, receipt);
  }
  const missing = receipt.filter(({ item, done }) => IDENTITY.includes(item) && !done);
  if (missing.length > 0) {
    const reasons = missing.map(({ item, how }) => `${item}: ${how}`);
    throw refusal("could not be given an identity of its own", reasons.join("; "), receipt);
  }
  return receipt;
}

/** What the guest says line by line. Nothing of it is trusted beyond short text: `waitReady` is the proof. */
class Answers {
  readonly #seed: NewSeed;
  readonly #machineId: string;
  readonly #told = new Map<string, ReceiptEntry>();
  #toldTimeMs = 0;
  complete = false;

  constructor(seed: NewSeed, machineId: string) {
    this.#seed = seed;
    this.#machineId = machineId;
  }

  /** Takes a line, and returns the script's input once that is asked for. */
  take(line: string): Uint8Array | undefined {
    if (line === "computer-host: clock?") return this.#input();
    if (line === "computer-host: end") this.complete = true;
    const [, name, state, words = ""] = /^computer-host: ([a-z_]+) (done|failed): (.*)$/.exec(line) ?? [];
    const item = RECEIPT_ITEMS.find((known) => known === name);
    if (item === undefined || this.#told.has(item)) return undefined;
    const entry = { item, done: state === "done", how: printable(words) };
    this.#told.set(item, item === "clock" && entry.done ? this.#clock(words) : entry);
    return undefined;
  }

  receipt(): ReceiptEntry[] {
    return RECEIPT_ITEMS.map(
      (item) => this.#told.get(item) ?? { item, done: false, how: "the guest said nothing of it" },
    );
  }

  #input(): Uint8Array {
    const tar = withoutPadding(this.#seed.bytes);
    // The time is told when it is asked for, and set before the rest is read: what is lost is one packet's way.
    this.#toldTimeMs = Date.now();
    const { sha256, hostname } = this.#seed;
    const random = randomBytes(RANDOM_BYTES).toString("hex");
    const head = [this.#toldTimeMs, sha256, hostname, this.#machineId, random, tar.length].join(" ");
    return Buffer.concat([Buffer.from(`${head}\n`), tar]);
  }

  /** `words` are the guest's time in milliseconds before and after. */
  #clock(words: string): ReceiptEntry {
    const item = "clock";
    const [, before, after] = /^(\d{1,15}) (\d{1,15})$/.exec(words) ?? [];
    if (before === undefined || after === undefined) {
      return { item, done: false, how: "the guest did not say what its time is" };
    }
    const apartMs = Math.abs(Date.now() - Number(after));
    if (apartMs > CLOCK_TOLERANCE_MS) {
      return { item, done: false, how: `set, but still ${apartMs / 1000} s from the host's time` };
    }
    const stepMs = this.#toldTimeMs - Number(before);
    const step = `${stepMs < 0 ? "-" : "+"}${(Math.abs(stepMs) / 1000).toFixed(3)}`;
    return { item, done: true, how: `stepped by ${step} s, then at most ${apartMs} ms from the host's time` };
  }
}

function printable(words: string): string {
  return words.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, WORDS_LIMIT);
}

function wordsFor(end: CommandEnd): string {
  return typeof end === "string" ? end : `exit code ${end.code}`;
}

function refusal(what: string, why: string, receipt: readonly ReceiptEntry[], cause?: unknown): AppError {
  return new AppError("guest_not_ready", `The woken guest ${what}: ${why}.`, { details: { receipt }, cause });
}
