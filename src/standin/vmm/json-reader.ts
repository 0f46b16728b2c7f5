/**
 * A JSON parser that knows where each value ends. Firecracker's complaints about a body name line and column, and
 * JSON.parse can tell neither that nor a key that is there twice.
 */

export interface Place {
  readonly line: number;
  readonly column: number;
}

export interface Member {
  readonly key: string;
  /** Just after the key's closing quote. */
  readonly keyEnd: Place;
  readonly value: JsonNode;
}

interface Span {
  /** At the value's first character. */
  readonly start: Place;
  /** At its last character. */
  readonly end: Place;
}

export type JsonNode = Span &
  (
    | { readonly kind: "null" }
    | { readonly kind: "boolean"; readonly value: boolean }
    | { readonly kind: "number"; readonly value: number; readonly text: string }
    | { readonly kind: "string"; readonly value: string }
    | { readonly kind: "array"; readonly items: readonly JsonNode[] }
    | { readonly kind: "object"; readonly members: readonly Member[] }
  );

/** What is wrong with a body. `place` is undefined where the complaint is about the whole. */
export class JsonError extends Error {
  readonly reason: string;
  readonly place: Place | undefined;

  constructor(reason: string, place: Place | undefined) {
    super(place === undefined ? reason : `${reason} at line ${place.line} column ${place.column}`);
    this.name = "JsonError";
    this.reason = reason;
    this.place = place;
  }
}

const MAX_DEPTH = 127;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** Parses a whole text. Throws JsonError. */
export function readJson(text: string): JsonNode {
  const reader = new Reader(text);
  const node = reader.value(0);
  reader.end();
  return node;
}

/** The plain value of a node. A key that is there twice keeps its last value. */
export function plainValue(node: JsonNode): unknown {
  switch (node.kind) {
    case "null":
      return null;
    case "array":
      return node.items.map(plainValue);
    case "object":
      return Object.fromEntries(node.members.map((member) => [member.key, plainValue(member.value)]));
    case "boolean":
    case "number":
    case "string":
      return node.value;
  }
}

class Reader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  value(depth: number): JsonNode {
    if (depth > MAX_DEPTH) throw this.#error("recursion limit exceeded", this.#at);
    this.#skipSpace();
    const start = this.#place(this.#at + 1);
    const char = this.#text[this.#at];
    if (char === undefined) throw this.#error("EOF while parsing a value", this.#at);
    if (char === "{") return this.#object(start, depth);
    if (char === "[") return this.#array(start, depth);
    if (char === '"') return { kind: "string", value: this.#string(), start, end: this.#place(this.#at) };
    if (char === "-" || (char >= "0" && char <= "9")) return this.#number(start);
    for (const [word, value] of [
      ["true", true],
      ["false", false],
      ["null", null],
    ] as const) {
      if (char !== word[0]) continue;
      this.#word(word);
      const end = this.#place(this.#at);
      return value === null ? { kind: "null", start, end } : { kind: "boolean", value, start, end };
    }
    throw this.#error("expected value", this.#at + 1);
  }

  end(): void {
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#error("trailing characters", this.#at + 1);
  }

  #object(start: Place, depth: number): JsonNode {
    this.#at += 1;
    const members: Member[] = [];
    for (;;) {
      this.#skipSpace();
      let char = this.#text[this.#at];
      if (char === undefined) throw this.#error("EOF while parsing an object", this.#at);
      if (char === "}" && members.length === 0) break;
      if (members.length > 0) {
        if (char === "}") break;
        if (char !== ",") throw this.#error("expected `,` or `}`", this.#at + 1);
        this.#at += 1;
        this.#skipSpace();
        char = this.#text[this.#at];
        if (char === undefined) throw this.#error("EOF while parsing a value", this.#at);
        if (char === "}") throw this.#error("trailing comma", this.#at + 1);
      }
      if (char !== '"') throw this.#error("key must be a string", this.#at + 1);
      const key = this.#string();
      const keyEnd = this.#place(this.#at);
      this.#skipSpace();
      if (this.#text[this.#at] === undefined) throw this.#error("EOF while parsing an object", this.#at);
      if (this.#text[this.#at] !== ":") throw this.#error("expected `:`", this.#at + 1);
      this.#at += 1;
      members.push({ key, keyEnd, value: this.value(depth + 1) });
    }
    this.#at += 1;
    return { kind: "object", members, start, end: this.#place(this.#at) };
  }

  #array(start: Place, depth: number): JsonNode {
    this.#at += 1;
    const items: JsonNode[] = [];
    for (;;) {
      this.#skipSpace();
      const char = this.#text[this.#at];
      if (char === undefined) throw this.#error("EOF while parsing a list", this.#at);
      if (char === "]") break;
      if (items.length > 0) {
        if (char !== ",") throw this.#error("expected `,` or `]`", this.#at + 1);
        this.#at += 1;
        this.#skipSpace();
        if (this.#text[this.#at] === "]") throw this.#error("trailing comma", this.#at + 1);
      }
      items.push(this.value(depth + 1));
    }
    this.#at += 1;
    return { kind: "array", items, start, end: this.#place(this.#at) };
  }

  #number(start: Place): JsonNode {
    const match = /^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/.exec(this.#text.slice(this.#at));
    if (match === null) throw this.#error("invalid number", this.#at + 1);
    this.#at += match[0].length;
    const next = this.#text[this.#at];
    if (next !== undefined && next >= "0" && next <= "9") throw this.#error("invalid number", this.#at + 1);
    return { kind: "number", value: Number(match[0]), text: match[0], start, end: this.#place(this.#at) };
  }

  #string(): string {
    this.#at += 1;
    let value = "";
    for (;;) {
      const char = this.#text[this.#at];
      if (char === undefined) throw this.#error("EOF while parsing a string", this.#at);
      this.#at += 1;
      if (char === '"') return value;
      if (char < " ") {
        const reason = "control character (\\u0000-\\u001F) found while parsing a string";
        throw this.#error(reason, this.#at);
      }
      value += char === "\\" ? this.#escape() : char;
    }
  }

  #escape(): string {
    const char = this.#text[this.#at];
    if (char === undefined) throw this.#error("EOF while parsing a string", this.#at);
    this.#at += 1;
    const plain = ESCAPES[char];
    if (plain !== undefined) return plain;
    const hex = /^[0-9a-fA-F]{4}/.exec(this.#text.slice(this.#at, this.#at + 4));
    if (char !== "u" || hex === null) throw this.#error("invalid escape", this.#at);
    this.#at += 4;
    return String.fromCharCode(Number.parseInt(hex[0], 16));
  }

  #word(word: string): void {
    for (const expected of word) {
      const char = this.#text[this.#at];
      if (char === undefined) throw this.#error("EOF while parsing a value", this.#at);
      this.#at += 1;
      if (char !== expected) throw this.#error("expected ident", this.#at);
    }
  }

  #skipSpace(): void {
    while (/^[ \t\r\n]$/.test(this.#text[this.#at] ?? "")) this.#at += 1;
  }

  #error(reason: string, column: number): JsonError {
    return new JsonError(reason, this.#place(column));
  }

  /** Line and column after `count` characters; columns count bytes from 1. */
  #place(count: number): Place {
    const before = this.#text.slice(0, count);
    const lineStart = before.lastIndexOf("\n") + 1;
    const line = before.split("\n").length;
    return { line, column: Buffer.byteLength(before.slice(lineStart)) };
  }
}
