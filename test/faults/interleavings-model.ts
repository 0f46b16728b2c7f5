import fc from "fast-check";
import type { Machine } from "../../src/contract/machine.ts";
import type { Answer } from "../support/request.ts";

/** Few, so that requests meet. */
export const MACHINES = ["a", "b"] as const;
export const SNAPSHOTS = ["p", "q"] as const;

/** What the host holds, as far as clients can tell. A machine is what its request made it, and its phase. */
export interface Held {
  readonly machines: Readonly<Record<string, { readonly from: string; readonly phase: Phase } | undefined>>;
  readonly snapshots: Readonly<Record<string, { readonly memory: boolean } | undefined>>;
}
type Phase = "running" | "paused" | "stopped";

/** A request: what is asked for, how long after the one before it, and how soon its client hangs up, if it does. */
export interface Step {
  readonly act: (typeof ACTS)[number];
  readonly machine: (typeof MACHINES)[number];
  readonly snapshot: (typeof SNAPSHOTS)[number];
  readonly memory: boolean;
  readonly gapMs: number;
  readonly hangUpMs: number | undefined;
}

const ACTS = [
  "create",
  "create",
  "stop",
  "start",
  "delete",
  "snapshot",
  "snapshot",
  "restore",
  "restore",
  "delete snapshot",
  "pause",
  "resume",
  "list",
] as const;

/** Scripts of requests. */
export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    act: fc.constantFrom(...ACTS),
    machine: fc.constantFrom(...MACHINES),
    snapshot: fc.constantFrom(...SNAPSHOTS),
    memory: fc.boolean(),
    gapMs: fc.oneof(fc.constant(0), fc.nat({ max: 20 }), fc.nat({ max: 200 })),
    hangUpMs: fc.oneof(
      { weight: 3, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.nat({ max: 100 }) },
    ),
  }),
  { minLength: 10, maxLength: 20 },
);

/** The answer in short: status, code of an error. */
export function short({ status, body }: Answer): string {
  return body?.code === undefined ? String(status) : `${status} ${body.code}`;
}

/** The phase, where `paused` is one. */
export function phaseOf({ phase, paused }: Machine): string {
  return paused === true ? "paused" : phase;
}

/**
 * The model: what may follow when the step happens at `held` and is answered so. A request whose client hung up may have
 * been done or not have arrived.
 */
export function after(step: Step, answer: Answer | undefined, held: Held): readonly Held[] {
  if (answer === undefined) {
    const done = transitions(step, held).map(([, next]) => next);
    return [held, ...done];
  }
  // A list tells of machines that come up, too, which are there for nobody else yet.
  if (step.act === "list") {
    const told = answer.body.machines as Machine[];
    const known = MACHINES.every((id) => {
      const found = told.find((machine) => machine.id === id);
      return found?.phase === "starting" || (found && phaseOf(found)) === held.machines[id]?.phase;
    });
    return known ? [held] : [];
  }
  return transitions(step, held).flatMap(([expected, next]) => (expected === short(answer) ? [next] : []));
}

/** How the step can be answered at `held`, each with what is held afterwards. */
function transitions(step: Step, held: Held): readonly (readonly [answer: string, next: Held])[] {
  const { machine: id, snapshot: name } = step;
  const machine = held.machines[id];
  const snapshot = held.snapshots[name];
  const withMachine = (next: Held["machines"][string]): Held => ({
    ...held,
    machines: { ...held.machines, [id]: next },
  });
  const withSnapshot = (next: Held["snapshots"][string]): Held => ({
    ...held,
    snapshots: { ...held.snapshots, [name]: next },
  });
  const phased = (phase: Phase): Held => withMachine(machine && { ...machine, phase });
  /** A delete that came meanwhile ends what comes up. */
  const cancelled = ["409 operation_cancelled", held] as const;
  const made = (from: string, refusal: readonly string[]): (readonly [string, Held])[] => {
    if (machine !== undefined)
      return [[machine.from === from ? "200" : "409 machine_exists", held], cancelled];
    if (refusal.length > 0) return [...refusal.map((word) => [word, held] as const), cancelled];
    return [["201", withMachine({ from, phase: "running" })], cancelled];
  };
  switch (step.act) {
    case "create":
      return made("create", []);
    case "restore":
      return made(`${name} ${step.memory}`, [
        ...(snapshot === undefined ? ["404 snapshot_not_found"] : []),
        ...(snapshot !== undefined && step.memory && !snapshot.memory ? ["422 snapshot_incompatible"] : []),
      ]);
    case "delete":
      return [["204", withMachine(undefined)]];
    case "delete snapshot":
      return [["204", withSnapshot(undefined)]];
    case "list":
      return [["200", held]];
    case "stop":
    case "start":
    case "pause":
    case "resume":
    case "snapshot":
      break;
  }
  if (machine === undefined)
    return [["404 machine_not_found", held], ...(step.act === "start" ? [cancelled] : [])];
  const runs = machine.phase !== "stopped";
  switch (step.act) {
    case "stop":
      return [["204", phased("stopped")]];
    case "start":
      return [["200", runs ? held : phased("running")], cancelled];
    case "pause":
      return [runs ? ["200", phased("paused")] : ["409 wrong_phase", held]];
    case "resume":
      return [runs ? ["200", phased("running")] : ["409 wrong_phase", held]];
    case "snapshot":
      if (snapshot !== undefined) return [["409 snapshot_exists", held]];
      if (step.memory && !runs) return [["409 wrong_phase", held]];
      return [["201", withSnapshot({ memory: step.memory })]];
  }
}
