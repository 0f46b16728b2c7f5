/**
 * The command-line grammar of Firecracker and its jailer: `--name value` and `--flag` only (no `--name=value`),
 * everything after a bare `--` handed on untouched, `--help` and `--version` winning over all else.
 */

export interface ArgumentSpec {
  readonly help: string;
  readonly kind: "flag" | "value" | "list";
  readonly required?: boolean;
  readonly default?: string;
  /** Another argument that must be present with this one. */
  readonly requires?: string;
  /** Arguments that must not be present with this one. */
  readonly forbids?: readonly string[];
}

export type ArgumentSpecs = Readonly<Record<string, ArgumentSpec>>;

/** A command line that the grammar refuses. `debug` is the form that the real programs print after `Error:`. */
export class ArgumentError extends Error {
  readonly debug: string;

  constructor(message: string, debug: string) {
    super(message);
    this.name = "ArgumentError";
    this.debug = debug;
  }
}

export class Arguments {
  readonly extra: readonly string[];
  readonly #specs: ArgumentSpecs;
  readonly #given: ReadonlyMap<string, readonly string[]>;

  constructor(specs: ArgumentSpecs, given: ReadonlyMap<string, readonly string[]>, extra: readonly string[]) {
    this.#specs = specs;
    this.#given = given;
    this.extra = extra;
  }

  flag(name: string): boolean {
    return this.#given.has(name);
  }

  /** The value given, else the default, else undefined. */
  value(name: string): string | undefined {
    return this.#given.get(name)?.[0] ?? this.#specs[name]?.default;
  }

  /** All values of a repeatable argument; undefined if it was not given at all. */
  list(name: string): readonly string[] | undefined {
    return this.#given.get(name);
  }
}

/** Parses what follows the program's name. Throws ArgumentError. */
export function parseArguments(specs: ArgumentSpecs, argv: readonly string[]): Arguments {
  const separator = argv.indexOf("--");
  const own = separator < 0 ? argv : argv.slice(0, separator);
  const extra = separator < 0 ? [] : argv.slice(separator + 1);
  if (own.includes("--help") || own.includes("-h"))
    return new Arguments(specs, new Map([["help", []]]), extra);
  if (own.includes("--version")) return new Arguments(specs, new Map([["version", []]]), extra);

  const given = new Map<string, string[]>();
  for (let index = 0; index < own.length; index += 1) {
    const word = own[index] ?? "";
    if (!word.startsWith("--")) throw unexpected(word);
    const name = word.slice(2);
    const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
    if (spec === undefined) throw unexpected(name);
    const values = given.get(name) ?? [];
    if (given.has(name) && spec.kind !== "list") {
      throw new ArgumentError(
        `The argument '${name}' was provided more than once.`,
        `DuplicateArgument(${JSON.stringify(name)})`,
      );
    }
    if (spec.kind !== "flag") {
      index += 1;
      const value = own[index];
      if (value === undefined || value.startsWith("--")) {
        throw new ArgumentError(
          `The argument '${name}' requires a value, but none was supplied.`,
          `MissingValue(${JSON.stringify(name)})`,
        );
      }
      values.push(value);
    }
    given.set(name, values);
  }
  checkRelations(specs, given, own);
  return new Arguments(specs, given, extra);
}

function checkRelations(
  specs: ArgumentSpecs,
  given: ReadonlyMap<string, readonly string[]>,
  own: readonly string[],
): void {
  for (const name of Object.keys(specs).toSorted()) {
    const spec = specs[name];
    if (spec === undefined) continue;
    if (spec.required === true && !given.has(name)) throw missing(name);
    if (!given.has(name)) continue;
    if (spec.requires !== undefined && !own.includes(`--${spec.requires}`)) throw missing(spec.requires);
    for (const other of spec.forbids ?? []) {
      if (own.includes(`--${other}`)) {
        throw new ArgumentError(
          `Argument '${other}' cannot be used together with argument '${name}'.`,
          `ForbiddenArgument(${JSON.stringify(name)}, ${JSON.stringify(other)})`,
        );
      }
    }
  }
}

/** The help text: required arguments first, each list in alphabetical order and aligned. */
export function formatHelp(specs: ArgumentSpecs): string {
  const names = Object.keys(specs).toSorted();
  const parts: string[] = [];
  const required = names.filter((name) => specs[name]?.required === true);
  if (required.length > 0) parts.push("required arguments:", formatList(specs, required), "");
  parts.push(
    "optional arguments:",
    formatList(
      specs,
      names.filter((name) => specs[name]?.required !== true),
    ),
  );
  return parts.join("\n");
}

function formatList(specs: ArgumentSpecs, names: readonly string[]): string {
  const heads = names.map((name) => (specs[name]?.kind === "flag" ? `  --${name}` : `  --${name} <${name}>`));
  const width = Math.max(0, ...heads.map((head) => head.length));
  return names
    .map((name, index) => {
      const spec = specs[name];
      const fallback = spec?.default === undefined ? "" : ` [default: ${JSON.stringify(spec.default)}]`;
      return `${(heads[index] ?? "").padEnd(width)}   ${spec?.help ?? ""}${fallback}`;
    })
    .join("\n");
}

function unexpected(name: string): ArgumentError {
  return new ArgumentError(
    `Found argument '${name}' which wasn't expected, or isn't valid in this context.`,
    `UnexpectedArgument(${JSON.stringify(name)})`,
  );
}

function missing(name: string): ArgumentError {
  return new ArgumentError(
    `Argument '${name}' required, but not found.`,
    `MissingArgument(${JSON.stringify(name)})`,
  );
}
