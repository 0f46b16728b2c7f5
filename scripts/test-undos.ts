/**
 * Switches off each undo of the source in turn and runs the tests that must see it, quickest first, until one is red.
 * Prints what saw each. Ends with 1 when an undo is missed by nobody, or a test is red though nothing is switched off.
 * Arguments, if any, choose the undos whose place contains one of them.
 */
import { filesFor, runWithout } from "../test/undos/suites.ts";
import { findUndos, type Undo } from "../test/undos/undos.ts";

const SIDE_BY_SIDE = 2;

const wanted = process.argv.slice(2);
const undos = findUndos().filter(
  ({ place }) => wanted.length === 0 || wanted.some((part) => place.includes(part)),
);
const out = (line: string): void => void process.stdout.write(`${line}\n`);
out(`${undos.length} undos found`);

/** Files that are green while every undo is on: no other's verdict counts. Rooms on the real host run one at a time. */
const sound = new Map<string, Promise<boolean>>();
let turn: Promise<unknown> = Promise.resolve();
async function inTurn(place: string | undefined, file: string): ReturnType<typeof runWithout> {
  if (file.startsWith("test/unit/host/")) return await runWithout(place, file);
  const mine = turn.then(() => runWithout(place, file));
  turn = mine.catch(() => undefined);
  return await mine;
}
function isSound(file: string): Promise<boolean> {
  const known = sound.get(file);
  if (known !== undefined) return known;
  const asked = inTurn(undefined, file).then(({ passed, failed }) => {
    if (failed.length > 0) out(`red with every undo on: ${file}: ${failed.join("; ")}`);
    return failed.length === 0 && passed > 0;
  });
  sound.set(file, asked);
  return asked;
}

/** The file that turned red, or undefined. */
async function seenBy(undo: Undo): Promise<string | undefined> {
  const { place } = undo;
  let reached = false;
  for (const file of filesFor(undo)) {
    if (!(await isSound(file))) continue;
    const verdict = await inTurn(place, file);
    reached ||= verdict.reached;
    if (verdict.reached && verdict.failed.length > 0) {
      out(`red       ${place}  by ${file}: ${verdict.failed[0]}`);
      return file;
    }
  }
  out(`SURVIVED  ${place}${reached ? "" : "  (no test comes to it)"}`);
  return undefined;
}

const counts = new Map<string, number>();
const survivors: string[] = [];
const left = undos.values();
const worker = async (): Promise<void> => {
  for (const undo of left) {
    const file = await seenBy(undo);
    if (file === undefined) survivors.push(undo.place);
    else counts.set(file, (counts.get(file) ?? 0) + 1);
  }
};
await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));

const unsound = (await Promise.all(sound.values())).filter((isGreen) => !isGreen).length;
out("");
for (const [file, count] of counts) out(`${String(count).padStart(4)}  ${file}`);
out(
  `${undos.length} undos, ${undos.length - survivors.length} turned a suite red, ${survivors.length} survived`,
);
for (const place of survivors) out(`survived: ${place}`);
if (unsound > 0) out(`${unsound} files are not green by themselves`);
process.exit(undos.length === 0 || survivors.length > 0 || unsound > 0 ? 1 : 0);
