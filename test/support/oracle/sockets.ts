import type { Item, Scope } from "./item.ts";
import { type Place, runIn } from "./place.ts";

/** Flag of a listening socket in /proc/net/unix. */
const ACCEPTS = 0x10000;

/**
 * Unix sockets that are bound below the root, or whose path carries the tag, in the network namespace of `place`, and
 * all that listen in a slot's. Only listening ones: each accepted connection bears the same path.
 */
export async function readSockets(scope: Scope, place: Place): Promise<Item[]> {
  const found = new Map<string, Item>();
  for (const line of (await runIn(place, ["cat", "/proc/net/unix"])).split("\n").slice(1)) {
    const [, , , flags, , , , ...path] = line.trim().split(/\s+/);
    const name = path.join(" ");
    if (name === "" || flags === undefined || (Number.parseInt(flags, 16) & ACCEPTS) === 0) continue;
    const ours = name.startsWith(`${scope.rootDir}/`) || name.includes(scope.tag);
    if (!ours && place.slot === undefined) continue;
    const full = `${place.label}: ${name}`;
    const owner =
      place.slot === undefined ? ({ of: "daemon" } as const) : ({ of: "slot", index: place.slot } as const);
    found.set(full, { resource: "socket", name: full, value: "", owner });
  }
  return [...found.values()];
}
