/** Turns a parsed body into a typed one, complaining in the words (and at the place) of Firecracker's own parser. */
import { type JsonNode, JsonError, plainValue, type Place, readJson } from "./json-reader.ts";

export type Decoder<T> = (node: JsonNode) => T;

/** One field of a body: its decoder, and what stands in for it when it is absent. */
export interface Field<T> {
  readonly decode: Decoder<T>;
  readonly absent?: { readonly value: T };
}

type Fields = Readonly<Record<string, Field<unknown>>>;

export type Decoded<F extends Fields> = {
  readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

/** A field that must be there. */
export function need<T>(decode: Decoder<T>): Field<T> {
  return { decode };
}

/** A field that may be absent or null. */
export function maybe<T>(decode: Decoder<T>): Field<T | null> {
  return { decode: (node) => (node.kind === "null" ? null : decode(node)), absent: { value: null } };
}

/** A field with a default; null is refused. */
export function withDefault<T>(decode: Decoder<T>, value: T): Field<T> {
  return { decode, absent: { value } };
}

/** A decoder for an object of these fields. `open` ones ignore unknown fields. */
export function struct<F extends Fields>(name: string, fields: F, open = false): Decoder<Decoded<F>> {
  const names = Object.keys(fields);
  return (node) => {
    if (node.kind === "array") return fromSequence(node, name, names.length);
    if (node.kind !== "object") throw wrongType(node, `struct ${name}`);
    const values: Record<string, unknown> = {};
    for (const { key, keyEnd, value } of node.members) {
      const field = Object.hasOwn(fields, key) ? fields[key] : undefined;
      if (field === undefined) {
        if (open) continue;
        throw new JsonError(`unknown field \`${key}\`, ${expectedNames(names, "field")}`, keyEnd);
      }
      if (Object.hasOwn(values, key)) throw new JsonError(`duplicate field \`${key}\``, keyEnd);
      values[key] = settle(field.decode, value, value === node.members.at(-1)?.value ? node.end : value.end);
    }
    for (const [key, field] of Object.entries(fields)) {
      if (Object.hasOwn(values, key)) continue;
      if (field.absent === undefined) throw new JsonError(`missing field \`${key}\``, node.end);
      values[key] = field.absent.value;
    }
    // In the fields' own order, which is how answers repeat them.
    return Object.fromEntries(names.map((key) => [key, values[key]])) as Decoded<F>;
  };
}

export const text: Decoder<string> = (node) => {
  if (node.kind !== "string") throw wrongType(node, "a string");
  return node.value;
};

export const flag: Decoder<boolean> = (node) => {
  if (node.kind !== "boolean") throw wrongType(node, "a boolean");
  return node.value;
};

/** An unsigned integer; `type` is the name that complaints give it. */
export function unsigned(type: "u8" | "u16" | "u32" | "u64" | "usize"): Decoder<number> {
  const max = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff, u64: 2 ** 64, usize: 2 ** 64 }[type];
  return (node) => {
    if (node.kind !== "number") throw wrongType(node, type);
    if (!/^-?[0-9]+$/.test(node.text)) {
      throw new JsonError(`invalid type: floating point \`${node.text}\`, expected ${type}`, node.end);
    }
    if (node.value < 0 || node.value > max) {
      throw new JsonError(`invalid value: integer \`${node.text}\`, expected ${type}`, node.end);
    }
    return node.value;
  };
}

/** One of a few words. */
export function word<const W extends string>(words: readonly W[]): Decoder<W> {
  return (node) => {
    if (node.kind !== "string") throw new JsonError("expected value", node.start);
    const found = words.find((candidate) => candidate === node.value);
    if (found === undefined) {
      throw new JsonError(`unknown variant \`${node.value}\`, ${expectedNames(words, "variant")}`, node.end);
    }
    return found;
  };
}

/** What a check of a text says: the value, or a sentence that says why there is none. */
export type Checked<T> = { readonly ok: T } | { readonly why: string };

/** Text that is checked as it is read: the complaint stands at its end. */
export function parsedText<T>(check: (value: string) => Checked<T>): Decoder<T> {
  return (node) => {
    const result = check(text(node));
    if ("why" in result) throw new JsonError(result.why, node.end);
    return result.ok;
  };
}

/** Text that is checked after it was read: the complaint stands where the reader has got to by then. */
export function checkedText<T>(check: (value: string) => Checked<T>): Decoder<T> {
  return (node) => {
    const result = check(text(node));
    if ("why" in result) throw new JsonError(result.why, undefined);
    return result.ok;
  };
}

/** Decodes one field, and gives a complaint without a place this one. */
function settle<T>(decode: Decoder<T>, node: JsonNode, place: Place): T {
  try {
    return decode(node);
  } catch (error) {
    if (error instanceof JsonError && error.place === undefined) throw new JsonError(error.reason, place);
    throw error;
  }
}

export function list<T>(decode: Decoder<T>): Decoder<readonly T[]> {
  return (node) => {
    if (node.kind !== "array") throw wrongType(node, "a sequence");
    return node.items.map(decode);
  };
}

export const anything: Decoder<unknown> = plainValue;

/** Parses and decodes a body. Throws JsonError. */
export function decodeBody<T>(decode: Decoder<T>, body: string): T {
  return decode(readJson(body));
}

/** A list in an object's place is read field by field, which no client does: only its length is looked at. */
function fromSequence(node: JsonNode, name: string, length: number): never {
  const count = node.kind === "array" ? node.items.length : 0;
  const reason = `invalid length ${count}, expected struct ${name} with ${length} elements`;
  throw new JsonError(reason, node.end);
}

function wrongType(node: JsonNode, expected: string): JsonError {
  const [found, place]: [string, Place] = ((): [string, Place] => {
    switch (node.kind) {
      case "null":
        return ["null", node.end];
      case "boolean":
        return [`boolean \`${node.value}\``, node.end];
      case "number":
        return /^-?[0-9]+$/.test(node.text)
          ? [`integer \`${node.text}\``, node.end]
          : [`floating point \`${node.text}\``, node.end];
      case "string":
        return [`string ${JSON.stringify(node.value)}`, node.end];
      // For the two that nest, the complaint comes before they are read.
      case "array":
        return ["sequence", before(node.start)];
      case "object":
        return ["map", before(node.start)];
    }
  })();
  return new JsonError(`invalid type: ${found}, expected ${expected}`, place);
}

function before(place: Place): Place {
  return { line: place.line, column: place.column - 1 };
}

function expectedNames(names: readonly string[], what: string): string {
  const quoted = names.map((name) => `\`${name}\``);
  if (quoted.length === 0) return `there are no ${what}s`;
  if (quoted.length <= 2) return `expected ${quoted.join(" or ")}`;
  return `expected one of ${quoted.join(", ")}`;
}
