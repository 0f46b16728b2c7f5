/**
 * What a start of the daemon is held against: Node, a socket that answers, and nothing else. With a folder of state it
 * also reads its files and what /proc tells of each process, which a daemon that takes guests over must do at least.
 *
 * Usage: floor.ts SOCKET [STATE_FOLDER]
 */
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const [socket = "", state] = process.argv.slice(2);
let records = 0;
if (state !== undefined) {
  for (const name of readdirSync(state))
    records += readFileSync(join(state, name), "utf8").split("\n").length;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      readFileSync(`/proc/${pid}/stat`);
    } catch {
      // It ended meanwhile.
    }
  }
}
createServer((_, response) => response.end(JSON.stringify({ records }))).listen(socket);
