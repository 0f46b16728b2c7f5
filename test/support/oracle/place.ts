import { readdirSync } from "node:fs";
import { run } from "../../../src/system/run.ts";
import type { Owner, Scope } from "./item.ts";

/** A network namespace to look into: the host's, or a slot's. */
export interface Place {
  readonly label: string;
  readonly netns?: string;
  readonly slot?: number;
}

/** Runs `argv` in the network namespace of `place` and returns its standard output. */
export async function runIn(
  place: Place,
  argv: readonly [string, ...string[]],
  okCodes: readonly number[] = [0],
): Promise<string> {
  const enter: readonly string[] =
    place.netns === undefined ? [] : ["nsenter", `--net=/run/netns/${place.netns}`];
  const [first, ...rest] = [...enter, ...argv];
  return first === undefined ? "" : (await run([first, ...rest], { okCodes })).stdout;
}

/** The output of an `ip -j` or `nft -j` command; no output is no objects. */
export async function jsonIn(place: Place, argv: readonly [string, ...string[]]): Promise<unknown> {
  const text = (await runIn(place, argv)).trim();
  return text === "" ? [] : JSON.parse(text);
}

/** Names under /run/netns, none when nothing ever made one. */
export function namedNamespaces(): string[] {
  try {
    return readdirSync("/run/netns").sort();
  } catch {
    return [];
  }
}

/** The slot that `name` (`ch-<tag>-<n>`) is the namespace of, or undefined. */
export function slotOfNamespace(scope: Scope, name: string): number | undefined {
  return trailingNumber(name, `ch-${scope.tag}-`);
}

/** The owner that a link's name tells: `ch<tag>v<n>` is a slot's end on the host, other names with the tag are stray. */
export function ownerOfLink(scope: Scope, name: string): Owner | undefined {
  const index = trailingNumber(name, `ch${scope.tag}v`);
  if (index !== undefined) return { of: "slot", index };
  return name.includes(scope.tag) ? { of: "stray" } : undefined;
}

/** The namespace that plays the host, then the namespaces of all slots. */
export function places(scope: Scope): Place[] {
  const host: Place = scope.netns === undefined ? { label: "host" } : { label: "host", netns: scope.netns };
  const slots = namedNamespaces().flatMap((netns): Place[] => {
    const slot = slotOfNamespace(scope, netns);
    return slot === undefined ? [] : [{ label: `slot ${slot}`, netns, slot }];
  });
  return [host, ...slots];
}

function trailingNumber(name: string, prefix: string): number | undefined {
  const rest = name.startsWith(prefix) ? name.slice(prefix.length) : "";
  return /^\d+$/.test(rest) ? Number(rest) : undefined;
}

/** A plain object of parsed JSON, or undefined. */
export function asRecord(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;
}

/** The plain objects of a parsed JSON array. */
export function records(value: unknown): Readonly<Record<string, unknown>>[] {
  return Array.isArray(value)
    ? value.flatMap((entry: unknown) => {
        const record = asRecord(entry);
        return record === undefined ? [] : [record];
      })
    : [];
}
