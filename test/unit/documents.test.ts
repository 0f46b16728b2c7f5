import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { errorsDocument, openApiDocument } from "../../scripts/documents.ts";
import { VARIABLES } from "../../src/settings.ts";

test("docs/openapi.json is what the schemas say (make docs)", async () => {
  assert.equal(readFileSync("docs/openapi.json", "utf8"), await openApiDocument());
});

test("docs/errors.md is what the registry says (make docs)", () => {
  assert.equal(readFileSync("docs/errors.md", "utf8"), errorsDocument());
});

test("the README names every variable with its default", () => {
  const readme = readFileSync("README.md", "utf8");
  const missing = Object.values(VARIABLES)
    .filter(
      ({ name, fallback }) =>
        !new RegExp(
          `\\| \`${name}\` \\|[^\\n]*${fallback === "" ? "" : fallback.replaceAll(".", "\\.")}`,
        ).test(readme),
    )
    .map(({ name }) => name);
  assert.deepEqual(missing, []);
});
