/**
 * Loaded in front of a suite (`node --import`): the undo at the place that UNDO_OFF names does nothing in this process.
 * The source on the disk stays as it is. UNDO_LOG is a file to which the place is written each time that the
 * undo would have been registered, or called for.
 */
import { appendFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { undosOf, without } from "./undos.ts";

const place = process.env["UNDO_OFF"] ?? "";
const path = place.slice(0, place.lastIndexOf(":"));
const url = pathToFileURL(join(import.meta.dirname, "../..", path)).href;

/** Stands where the undo was registered. */
function undoIsOff(given?: unknown): unknown {
  appendFileSync(process.env["UNDO_LOG"] ?? "/dev/null", `${place}\n`);
  return given;
}

if (place !== "") {
  Object.assign(globalThis, { undoIsOff });
  registerHooks({
    load(asked, context, nextLoad) {
      const loaded = nextLoad(asked, context);
      if (asked !== url || loaded.source === undefined || loaded.source === null) return loaded;
      const text =
        typeof loaded.source === "string"
          ? loaded.source
          : Buffer.from(loaded.source as Uint8Array).toString();
      const undo = undosOf(path, text).find((each) => each.place === place);
      if (undo === undefined) throw new Error(`there is no undo at ${place}`);
      return { ...loaded, source: without(text, undo) };
    },
  });
}
