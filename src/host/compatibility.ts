import { AppError } from "../contract/errors.ts";
import type { SnapshotId } from "../contract/ids.ts";
import type { Compatibility, VerdictReason } from "../contract/snapshot.ts";
import type { Manifest } from "../model/manifest.ts";
import { snapshotOf } from "./artifacts.ts";
import type { HostContext } from "./context.ts";
import { type HostFacts, hostFacts } from "./host-facts.ts";

/** What a snapshot is judged against. */
export interface Here {
  readonly host: HostFacts;
  readonly vmm: { readonly name: string; readonly version: string; readonly snapshotFormat: string };
}

/** How many missing features a sentence names. */
const MOST_NAMED = 8;

/**
 * What keeps a snapshot from going on where it stood, or from booting, on this host: a rule each for what Firecracker
 * documents that a snapshot depends on (its docs/snapshotting), and none of them tried out on the guest.
 */
export function reasonsAgainst(manifest: Manifest, { host, vmm }: Here): VerdictReason[] {
  const reasons: VerdictReason[] = [];
  const against = (prevents: VerdictReason["prevents"], code: string, text: string): void => {
    reasons.push({ code, text, prevents });
  };
  if (manifest.host.architecture !== host.architecture)
    against(
      "disk",
      "other_architecture",
      `it was taken on ${manifest.host.architecture}, and this host is ${host.architecture}`,
    );
  if (manifest.memory === undefined || manifest.vmstate === undefined) {
    against("live", "no_memory", "it holds a disk and no memory");
    return reasons;
  }
  if (manifest.hardware.huge_pages !== "None")
    against("live", "huge_pages", "its memory lay in huge pages, which a VMM does not load from a file");
  if (manifest.vmm.name !== vmm.name)
    against(
      "live",
      "other_vmm",
      `it was taken under ${manifest.vmm.name}, and machines run under ${vmm.name} here`,
    );
  else if (!readsFormat(vmm.snapshotFormat, manifest.vmm.snapshot_format))
    against(
      "live",
      "other_snapshot_format",
      `its state has the format ${manifest.vmm.snapshot_format ?? "(unknown)"} of ${manifest.vmm.version}, and ${vmm.name} ${vmm.version} reads ${vmm.snapshotFormat}`,
    );
  if (manifest.guest === undefined)
    against(
      "live",
      "guest_unknown",
      "its manifest does not say who its guest was, and nobody could reach it to make it another",
    );
  if (manifest.host.cpu_vendor !== host.cpu_vendor)
    against(
      "live",
      "other_cpu_vendor",
      `it was taken on a processor of ${manifest.host.cpu_vendor}, and this host's is of ${host.cpu_vendor}`,
    );
  else if (manifest.hardware.cpu_template === undefined) {
    const missing = manifest.host.cpu_flags.filter((flag) => !host.cpu_flags.includes(flag));
    const named = missing.slice(0, MOST_NAMED).join(", ");
    const more = missing.length > MOST_NAMED ? ` and ${missing.length - MOST_NAMED} more` : "";
    if (missing.length > 0)
      against(
        "live",
        "cpu_features_missing",
        `its guest may use features that this processor lacks: ${named}${more}`,
      );
  }
  return reasons;
}

/** Firecracker's rule: the same major version, and a minor one that is not newer than what the VMM writes itself. */
function readsFormat(reads: string, written: string | undefined): boolean {
  if (written === undefined) return false;
  const parts = (text: string) => /^(\d+)\.(\d+)\.\d+(.*)$/.exec(text);
  const [mine, its] = [parts(reads), parts(written)];
  if (mine === null || its === null) return reads === written;
  return mine[1] === its[1] && mine[3] === its[3] && Number(its[2]) <= Number(mine[2]);
}

export function verdict(snapshot_id: SnapshotId, reasons: VerdictReason[]): Compatibility {
  const prevented = new Set(reasons.map(({ prevents }) => prevents));
  const restorable = prevented.has("disk") ? "no" : prevented.has("live") ? "disk" : "live";
  return { snapshot_id, restorable, reasons };
}

/** The verdict on a snapshot, from its manifest and what is here; its files are looked at by `compatibility` alone. */
export async function judge(
  { storage, vmms }: HostContext,
  id: SnapshotId,
  manifest: Manifest,
): Promise<Compatibility> {
  const { name, version } = vmms.description;
  const reasons = reasonsAgainst(manifest, {
    host: hostFacts(),
    vmm: { name, version, snapshotFormat: vmms.snapshotFormat },
  });
  const missing = await problemOf("image_invalid", () => storage.imageFiles(manifest.image));
  if (missing !== undefined) reasons.push({ code: "image_missing", text: missing.message, prevents: "disk" });
  return verdict(id, reasons);
}

/** GET /snapshots/{id}/compatibility. Throws `snapshot_not_found`. */
export async function compatibility(context: HostContext, id: SnapshotId): Promise<Compatibility> {
  const { state, storage, snapshotLocks } = context;
  using _lock = await snapshotLocks.acquireShared(id);
  snapshotOf(state, id);
  let manifest: Manifest | undefined;
  const damage = await problemOf("snapshot_invalid", async () => {
    manifest = await storage.readManifest(id);
    await storage.checkSnapshot(id, "all");
  });
  const judged = manifest === undefined ? [] : (await judge(context, id, manifest)).reasons;
  if (damage === undefined) return verdict(id, judged);
  const artifact = damage.details?.["artifact"];
  const onlyMemory = artifact === "memory" || artifact === "vmstate";
  const reason: VerdictReason = {
    code: "damaged",
    text: damage.message,
    prevents: onlyMemory ? "live" : "disk",
  };
  return verdict(id, [reason, ...judged]);
}

/** The error of this code that `look` throws, or undefined. */
async function problemOf(
  code: AppError["code"],
  look: () => Promise<unknown>,
): Promise<AppError | undefined> {
  try {
    await look();
    return undefined;
  } catch (error) {
    if (error instanceof AppError && error.code === code) return error;
    throw error;
  }
}
