/** The metadata store: kept and given back over the API. Guests can't reach it, for want of a network stack here. */
import { Fault } from "./fault.ts";

export class MetadataStore {
  readonly #limit: number;
  #value: unknown = null;
  #initialized = false;

  /** `limit`: the largest value in bytes of JSON. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get value(): unknown {
    return this.#value;
  }

  put(value: unknown): void {
    this.#set(value);
    this.#initialized = true;
  }

  /** Merges as RFC 7396 does: null removes, objects merge, everything else replaces. */
  patch(value: unknown): void {
    if (!this.#initialized) throw notInitialized();
    this.#set(merge(this.#value, value));
  }

  #set(value: unknown): void {
    if (Buffer.byteLength(JSON.stringify(value)) > this.#limit) {
      throw new Fault("MMDS limit exceeded error: The MMDS patch request doesn't fit.", { status: 413 });
    }
    this.#value = value;
  }
}

export function notInitialized(): Fault {
  return new Fault("MMDS error: The MMDS data store is not initialized.");
}

function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const merged: Record<string, unknown> = isObject(target) ? { ...target } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
