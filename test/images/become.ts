/** A program: makes the running guest at 172.16.0.2 another one. The job comes on standard input, the receipt goes out. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import { createGuests } from "../../src/guest/guests.ts";
import { silentLog } from "../../src/system/log.ts";
import type { TestIdentity } from "./identity.ts";

export interface BecomeJob {
  readonly folder: string;
  readonly from: TestIdentity;
  readonly to: TestIdentity;
}

const { folder, from, to } = (await json(process.stdin)) as BecomeJob;
const guests = createGuests({ rootDir: join(folder, "daemon"), log: silentLog });
await guests.open();
const address = async ({ hostPublicKey, daemonKeyPath }: TestIdentity) => ({
  host: "172.16.0.2",
  ssh_host_public_key: hostPublicKey,
  login_key: await readFile(daemonKeyPath, "utf8"),
});
const signal = AbortSignal.timeout(50_000);
const seed = { bytes: await readFile(to.seedPath), sha256: to.seedSha256, hostname: to.hostname };
const receipt = await guests.makeUnique(await address(from), seed, signal);
await guests.waitReady(await address(to), signal);
process.stdout.write(JSON.stringify(receipt), () => process.exit(0));
