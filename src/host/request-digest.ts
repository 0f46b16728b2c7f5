import { createHash } from "node:crypto";
import type { Restart } from "../contract/machine.ts";

/** A URL as far as it names something: signatures and tokens ride in the query, and the fragment never leaves the client. */
export function withoutQuery(url: string): string {
  return url.replace(/[?#].*$/s, "");
}

function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, item]) => item !== undefined && key !== "bearer_token" && key !== "download_url")
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [
        key,
        key.endsWith("_url") && typeof item === "string" ? withoutQuery(item) : canonical(item),
      ]),
  );
}

/** The policy as far as it differs from the default: a request that says never is the same as one that leaves it out. */
export function keptRestart(restart: Restart | undefined): Restart | undefined {
  return restart === "never" ? undefined : restart;
}

/**
 * SHA-256 of a request after defaults: the same id with the same digest is the same request.
 * The order of keys does not count, nor do tokens and download URLs, which change from one try to the next.
 */
export function requestDigest(request: object): string {
  return createHash("sha256")
    .update(JSON.stringify(canonical(request)))
    .digest("hex");
}
