import { createHash } from "node:crypto";

/** SHA-256 of `text` as 64 hex digits. */
export function checksumOf(text: string): string {
  return createHash("sha256").update(text, "utf8").digest("hex");
}

/** The text of `bytes`, or undefined when they are not UTF-8: then they are not what was written. */
export function strictText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** The JSON object in `text`, or undefined when it is none. */
export function jsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}
