import { pino } from "pino";
import { makeServer } from "../src/api/server.ts";
import { ERRORS } from "../src/contract/errors.ts";
import type { Host } from "../src/host/host.ts";

/** docs/openapi.json, from the schemas that also validate. Nothing is called, so there is no host behind it. */
export async function openApiDocument(): Promise<string> {
  const app = await makeServer(Object.create(null) as Host, pino({ level: "silent" }));
  try {
    return `${JSON.stringify(app.swagger(), undefined, 2)}\n`;
  } finally {
    await app.close();
  }
}

/** docs/errors.md, from the registry of errors. */
export function errorsDocument(): string {
  const rows = Object.entries(ERRORS)
    .map(([code, { status, meaning }]) => ({ code, status, meaning }))
    .sort((a, b) => a.status - b.status || (a.code < b.code ? -1 : 1))
    .map(({ code, status, meaning }) => `| ${status} | \`${code}\` | ${meaning} |`);
  return `# Errors

Every error is \`{"error": "a sentence", "code": "stable_snake_case", "details": {…}}\`. Branch on \`code\`; sentences may change.
This page is generated from \`src/contract/errors.ts\` by \`make docs\`.

| status | code | meaning |
|---|---|---|
${rows.join("\n")}
`;
}
