import { registerHooks } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { collected, collectFor } from "./collector.ts";

/*
 * Prints the cases of the test files in its arguments as JSON, without running any: names come from tables and loops,
 * so only the files themselves know them. They are imported with the collector in the place of node:test.
 */
const collector = new URL("collector.ts", import.meta.url).href;
registerHooks({
  resolve: (specifier, context, next) =>
    specifier === "node:test" ? { url: collector, shortCircuit: true } : next(specifier, context),
});
for (const file of process.argv.slice(2)) {
  collectFor(file);
  await import(pathToFileURL(resolve(file)).href);
}
process.stdout.write(JSON.stringify(collected));
