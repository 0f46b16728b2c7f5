import assert from "node:assert/strict";
import { test } from "node:test";

import { ArgumentError, formatHelp, parseArguments } from "../../../../src/standin/shared/arguments.ts";

const SPECS = {
  id: { kind: "value", required: true, help: "An id." },
  cgroup: { kind: "list", help: "Many." },
  "no-api": { kind: "flag", requires: "config", help: "A flag." },
  config: { kind: "value", help: "A file." },
  size: { kind: "value", default: "5", forbids: ["no-size"], help: "A size." },
  "no-size": { kind: "flag", help: "No size." },
} as const;

test("values, lists, flags, defaults and what follows the separator are told apart", () => {
  const args = parseArguments(SPECS, ["--id", "a", "--cgroup", "x=1", "--cgroup", "y=2", "--", "--id", "b"]);
  assert.equal(args.value("id"), "a");
  assert.deepEqual(args.list("cgroup"), ["x=1", "y=2"]);
  assert.equal(args.value("size"), "5");
  assert.equal(args.flag("no-api"), false);
  assert.deepEqual(args.extra, ["--id", "b"]);
});

for (const [name, argv, words] of [
  ["a required argument is missing", [], "Argument 'id' required, but not found."],
  ["a value is missing", ["--id"], "The argument 'id' requires a value, but none was supplied."],
  ["a flag stands where a value should", ["--id", "--no-size"], "The argument 'id' requires a value"],
  ["an argument is unknown", ["--id", "a", "--what"], "Found argument 'what' which wasn't expected"],
  ["an object's own property is no argument", ["--id", "a", "--constructor"], "Found argument 'constructor'"],
  ["a word stands alone", ["a"], "Found argument 'a' which wasn't expected"],
  ["an equals sign is not the grammar", ["--id=a"], "Found argument 'id=a' which wasn't expected"],
  ["an argument comes twice", ["--id", "a", "--id", "b"], "The argument 'id' was provided more than once."],
  ["a companion is missing", ["--id", "a", "--no-api"], "Argument 'config' required, but not found."],
  [
    "two exclude each other",
    ["--id", "a", "--size", "1", "--no-size"],
    "Argument 'no-size' cannot be used together with argument 'size'.",
  ],
] as const) {
  test(`a command line is refused when ${name}`, () => {
    assert.throws(
      () => parseArguments(SPECS, argv),
      (error) => error instanceof ArgumentError && error.message.startsWith(words),
    );
  });
}

test("help and version win over everything that is wrong", () => {
  assert.ok(parseArguments(SPECS, ["--what", "-h"]).flag("help"));
  assert.ok(parseArguments(SPECS, ["--what", "--version"]).flag("version"));
});

test("help lists the required arguments first, each list in order", () => {
  const help = formatHelp(SPECS);
  assert.match(help, /^required arguments:\n {2}--id <id> {3}An id\.\n\noptional arguments:\n/);
  assert.ok(help.indexOf("--cgroup") < help.indexOf("--config"));
  assert.match(help, /A size\. \[default: "5"\]/);
});
