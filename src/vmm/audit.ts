import { messageOf } from "../contract/errors.ts";
import type { HostItem, Mended } from "../model/inventory.ts";
import { isAlive } from "../system/process.ts";
import type { Cgroups } from "./cgroups.ts";
import type { Jails } from "./jail.ts";
import type { KnownVmm, VmmRef } from "./types.ts";

/** Jails, VMMs and cgroups that are on the host, or should be. */
export async function inventoryOf(
  jails: Jails,
  cgroups: Cgroups,
  known: readonly KnownVmm[],
): Promise<HostItem[]> {
  const [folders, groups] = await Promise.all([jails.list(), cgroups.list()]);
  const names = new Set(known.map(({ jail_id }) => jail_id));
  const items: HostItem[] = [
    ...folders.filter((id) => !names.has(id)).map((id) => leaked("jail", id)),
    ...groups.filter((id) => !names.has(id)).map((id) => leaked("cgroup", id)),
  ];
  for (const vmm of known) items.push(...(await itemsOf(vmm, new Set(folders), new Set(groups), cgroups)));
  return items;
}

function leaked(resource: "jail" | "cgroup", id: string): HostItem {
  return { resource, name: id, holder: { of: "jail", id }, status: "leaked", detail: "no machine has it" };
}

async function itemsOf(
  { jail_id, process, limits }: KnownVmm,
  folders: ReadonlySet<string>,
  groups: ReadonlySet<string>,
  cgroups: Cgroups,
): Promise<HostItem[]> {
  const holder = { of: "jail", id: jail_id } as const;
  // Until its process is recorded, the VMM comes up, and what of it is there yet is nobody's business.
  if (process === undefined) {
    return [
      ...(folders.has(jail_id) ? [{ resource: "jail", name: jail_id, holder, status: "ok" } as const] : []),
      ...(groups.has(jail_id) ? [{ resource: "cgroup", name: jail_id, holder, status: "ok" } as const] : []),
    ];
  }
  const lives = isAlive(process);
  const items: HostItem[] = [
    {
      resource: "jail",
      name: jail_id,
      holder,
      ...(folders.has(jail_id) ? { status: "ok" } : { status: "missing", detail: LOST_JAIL }),
    },
    {
      resource: "process",
      name: `VMM ${process.pid} of jail ${jail_id}`,
      holder,
      ...(lives ? { status: "ok" } : { status: "missing", detail: "it has ended" }),
    },
  ];
  if (!lives || limits === undefined) return items;
  const problem = await cgroups.problem(jail_id, limits, process.pid);
  items.push({
    resource: "cgroup",
    name: jail_id,
    holder,
    ...(problem === undefined
      ? { status: "ok" }
      : { status: groups.has(jail_id) ? "altered" : "missing", detail: problem }),
  });
  return items;
}

const LOST_JAIL =
  "its folder was removed under the VMM, which cannot be taken over any more: stop the machine and start it again";

/** Mends items one after another, what has one jail once. */
export async function mendVmms(
  cgroups: Cgroups,
  release: (ref: VmmRef) => Promise<void>,
  items: readonly HostItem[],
  known: readonly KnownVmm[],
): Promise<Mended[]> {
  const results: Mended[] = [];
  const done = new Map<string, Pick<Mended, "ok" | "reason">>();
  for (const { resource, name, holder, status, detail } of items) {
    if (holder.of !== "jail") continue;
    const vmm = known.find(({ jail_id }) => jail_id === holder.id);
    const { process, limits } = vmm ?? {};
    let action = "left as it is";
    let mend: (() => Promise<void>) | undefined;
    if (status === "leaked" && vmm === undefined) {
      action = "removed, with what ran there";
      mend = () => release({ jail_id: holder.id, uid: -1, gid: -1, netns_path: "" });
    } else if (resource === "cgroup" && process !== undefined && limits !== undefined) {
      action = "set the limits and put the VMM under them";
      mend = () => cgroups.restore(holder.id, limits, process.pid);
    }
    const key = `${action} ${holder.id}`;
    const outcome =
      mend === undefined
        ? { ok: false, reason: detail ?? "nothing mends it" }
        : (done.get(key) ?? (await attempt(mend)));
    done.set(key, outcome);
    results.push({ resource, name, action, ...outcome });
  }
  return results;
}

async function attempt(mend: () => Promise<void>): Promise<Pick<Mended, "ok" | "reason">> {
  try {
    await mend();
    return { ok: true };
  } catch (error) {
    return { ok: false, reason: messageOf(error) };
  }
}
