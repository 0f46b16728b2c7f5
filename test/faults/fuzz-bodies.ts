import fc from "fast-check";
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** The part of JSON Schema that the contract is written in. */
export interface Schema {
  readonly type?: string;
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly minItems?: number;
  readonly pattern?: string;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly $ref?: string;
}

/** One call of the contract, as docs/openapi.json has it, which is generated from the schemas. */
export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body: Schema | undefined;
}

const document = JSON.parse(readFileSync(join(import.meta.dirname, "../../docs/openapi.json"), "utf8")) as {
  paths: Record<
    string,
    Record<string, { requestBody?: { content: { "application/json": { schema: Schema } } } }>
  >;
  components: { schemas: Record<string, Schema> };
};

export const CALLS: readonly Call[] = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, { requestBody }]) => ({
    method: method.toUpperCase(),
    path,
    body: requestBody?.content["application/json"].schema,
  })),
);

/** None of these is asked: an address that does not answer is tried for seconds. What servers can do is artifacts.test.ts. */
const URLS = [
  "http://user:secret@127.0.0.1/x",
  "http://127.0.0.1:99999/",
  "file:///etc/passwd",
  "file:///var/../etc/shadow",
  "file://elsewhere/etc/passwd",
  "gopher://127.0.0.1/",
  "http://",
  "not a URL",
];
const IDS = ["one", "s", "none", "fuzzed"];

/** Bodies that the schema allows. Ids and URLs are of a few, so that some name what is there. */
function allowed(schema: Schema, name = ""): fc.Arbitrary<unknown> {
  if (schema.$ref !== undefined) {
    const target = document.components.schemas[schema.$ref.replace("#/components/schemas/", "")];
    if (target === undefined) throw new Error(`no schema ${schema.$ref}`);
    return allowed(target, name);
  }
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.anyOf !== undefined) return fc.oneof(...schema.anyOf.map((one) => allowed(one, name)));
  const { type = "none" } = schema;
  switch (type) {
    case "object": {
      const fields = Object.entries(schema.properties ?? {});
      const model = Object.fromEntries(
        fields.map(([key, value]) => {
          const valid = allowed(value, key);
          const isRequired = schema.required?.includes(key) === true;
          return [key, isRequired ? valid : fc.option(valid, { nil: undefined, freq: 2 })];
        }),
      );
      return fc.record(model);
    }
    case "array":
      return fc.array(schema.items === undefined ? fc.constant(null) : allowed(schema.items, name), {
        minLength: schema.minItems ?? 0,
        maxLength: 2,
      });
    case "integer": {
      const [min, max] = [schema.minimum ?? 0, schema.maximum ?? Number.MAX_SAFE_INTEGER];
      return fc.oneof(
        fc.constantFrom(min, max),
        fc.maxSafeInteger().map((n) => min + (Math.abs(n) % (max - min + 1))),
      );
    }
    case "boolean":
      return fc.boolean();
    case "string":
      if (name.endsWith("url")) return fc.constantFrom(...URLS);
      if (name.endsWith("_id") || name === "id" || name === "image") return fc.constantFrom(...IDS);
      if (schema.pattern !== undefined)
        return fc.stringMatching(new RegExp(schema.pattern)).map((text) => text.slice(0, schema.maxLength));
      return fc.string({ minLength: schema.minLength ?? 0, maxLength: Math.min(schema.maxLength ?? 64, 64) });
    default:
      throw new Error(`a schema that the fuzzer does not know: ${JSON.stringify(schema)}`);
  }
}

/** Stands for a number that JSON.stringify would not write; see `textOf`. */
const RAW = "raw number ";
const PROTO = "the key of the prototype";

const poison: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    -1,
    0,
    0.5,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    2 ** 64,
    -(2 ** 63),
    1e308,
    ...["NaN", "Infinity", "1e999", "-0", "0x10", "1_000", "01", "12345678901234567890123456789"].map(
      (text) => `${RAW}${text}`,
    ),
    "",
    "..",
    "../../machines",
    "a/b",
    "a\0b",
    "a\nb",
    "\u202e\u0000\uffff",
    "\ud800",
    "𝕬",
    "NaN",
    "1",
    "true",
    "x".repeat(100_000),
    [],
    {},
    [[[[[[[[]]]]]]]],
    { [PROTO]: { polluted: true } },
    { constructor: { prototype: { polluted: true } } },
    { length: 1e9 },
    { toString: 1, valueOf: 1, toJSON: 1 },
  ),
  fc.jsonValue(),
);

const extraKey = fc.constantFrom(
  PROTO,
  "constructor",
  "prototype",
  "toString",
  "hasOwnProperty",
  "",
  " ",
  "machine_id ",
  "Machine_id",
  "m\u0430chine_id",
  "\0",
  "$ref",
  "phase",
  "uid",
);

/** Every place in a JSON value: its own, and those below. */
function placesIn(value: unknown, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== "object" || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => placesIn(inner, [...path, key]))];
}

/** The value with what lies at `path` made anew by `change`. */
function changed(value: unknown, path: readonly string[], change: (old: unknown) => unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return change(value);
  if (Array.isArray(value))
    return value.map((inner: unknown, index) =>
      String(index) === key ? changed(inner, rest, change) : inner,
    );
  return { ...(value as object), [key]: changed((value as Record<string, unknown>)[key], rest, change) };
}

/** As JSON, with the few things in it that no JSON value of JavaScript can hold. */
function textOf(value: unknown): string {
  return JSON.stringify(value)
    .replaceAll(new RegExp(`"${RAW}([^"]*)"`, "g"), "$1")
    .replaceAll(JSON.stringify(PROTO), '"__proto__"');
}

/** Texts of bodies for a call: as its schema allows, most with one field made wrong, left out or added, or broken as text. */
export function bodies(schema: Schema): fc.Arbitrary<string> {
  const changing = fc.record({
    where: fc.nat(),
    what: fc.constantFrom("replace", "replace", "remove", "add"),
    with: poison,
    key: extraKey,
  });
  const mutated = fc.tuple(allowed(schema), changing).map(([body, { where, what, with: value, key }]) => {
    const clean = JSON.parse(JSON.stringify(body)) as unknown;
    const places = placesIn(clean);
    const path = places[where % places.length] ?? [];
    const made = changed(clean, path, (old) => {
      if (what === "remove") return undefined;
      if (what === "add" && typeof old === "object" && old !== null && !Array.isArray(old))
        return { ...old, [key]: value };
      return value;
    });
    return textOf(made ?? null);
  });
  const broken = fc
    .tuple(mutated, fc.nat(), fc.constantFrom("cut", "bom", "twice", "byte", "deep"))
    .map(([text, at, how]) => {
      switch (how) {
        case "cut":
          return text.slice(0, at % (text.length + 1));
        case "bom":
          return `\ufeff${text}`;
        case "twice":
          return `${text}${text}`;
        case "byte":
          return `${text.slice(0, at % text.length)}${String.fromCharCode(at % 32)}${text.slice(at % text.length)}`;
        case "deep":
        default:
          return `${"[".repeat(100_000)}${text}`;
      }
    });
  return fc.oneof(
    { weight: 6, arbitrary: mutated },
    { weight: 1, arbitrary: broken },
    { weight: 1, arbitrary: allowed(schema).map(textOf) },
  );
}
