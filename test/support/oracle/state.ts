import { difference } from "./compare.ts";
import { describeOwner, type Difference, type Inventory, type Item, type Resource } from "./item.ts";
import { elementOf } from "./nftables.ts";

/** A machine as the state tells it, whether read from the file or from the daemon's answer. */
export interface ExpectedMachine {
  readonly id: string;
  readonly phase: "starting" | "running" | "stopped" | "failed";
  readonly slot?: number;
  readonly vmm?: {
    readonly jail_id: string;
    readonly uid: number;
    readonly gid: number;
    readonly pid?: number;
  };
}

export interface ExpectedState {
  readonly machines: readonly ExpectedMachine[];
  readonly snapshots: readonly { readonly id: string }[];
  /** Ids of operations that are under way; undefined when the source cannot tell. */
  readonly operations?: readonly string[];
  /** Largest number of ready-made slots that may wait. */
  readonly poolSize: number;
  /** True while the daemon runs: its socket, claim and table must be there, and slots may wait. */
  readonly daemonRuns: boolean;
}

const WRITTEN_BY_VMM = /\.(log|jsonl)$/;
/** Files of a machine that has been created, and those that a VMM writes besides. */
const MACHINE_FILES = ["disk.img", "seed.img", "console.log", "vmm.log", "metrics.jsonl"];
/** Memory that the next diff of a running machine stands on: where it is there, it is root's. */
const MEMORY_BASE = "memory-base.img";
/** The set of slots whose guests may reach the outside. */
const OPENED_SET = "opened";
const SNAPSHOT_FILES = ["disk.img", "manifest.json"];
/** Of a snapshot with memory; and what the daemon learned of the files when it read them last. */
const MORE_SNAPSHOT_FILES = ["memory.img", "vmstate.bin", "proof.json"];

/** What exists on the host and belongs to nothing in `state`, what `state` needs and is not there, and what is not as it must be. */
export function compareWithState(inventory: Inventory, state: ExpectedState): Difference[] {
  return [
    ...leaks(inventory, state),
    ...state.machines.flatMap((machine) => machineDifferences(inventory, machine)),
    ...state.snapshots.flatMap((snapshot) => snapshotDifferences(inventory, snapshot.id)),
    ...poolDifferences(inventory, state),
    ...daemonDifferences(inventory, state),
    ...(state.operations ?? []).map(
      (id): Difference => ({ kind: "leaked", resource: "operation", what: `operation ${id} never ended` }),
    ),
  ];
}

function leaks(inventory: Inventory, state: ExpectedState): Difference[] {
  const machines = new Set(state.machines.map(({ id }) => id));
  const snapshots = new Set(state.snapshots.map(({ id }) => id));
  const jails = new Set(state.machines.flatMap(({ vmm }) => (vmm === undefined ? [] : [vmm.jail_id])));
  const inUse = slotsInUse(state);
  const present = new Set(slotsPresent(inventory));
  return inventory.items
    .filter(({ owner, resource, name }) => {
      if (owner === undefined) return false;
      switch (owner.of) {
        case "stray":
          // A watched folder and a root that is itself a mount are for comparisons with before.
          return (
            resource !== "file" && !(resource === "mount" && name.startsWith(`${inventory.scope.rootDir} `))
          );
        case "daemon":
          return isRubbish(inventory, name);
        case "machine":
          return !machines.has(owner.id);
        case "snapshot":
          return !snapshots.has(owner.id);
        case "jail":
          return !jails.has(owner.id);
        case "slot":
          break;
      }
      // Nothing runs and nothing is bound in a slot that waits; its other things are the pool's.
      if (inUse.has(owner.index)) return false;
      return (
        resource === "process" || resource === "socket" || !state.daemonRuns || !present.has(owner.index)
      );
    })
    .map((item) => difference("leaked", item));
}

/** Half-made and half-removed files that should not outlive the operation that made them. */
function isRubbish({ scope }: Inventory, name: string): boolean {
  const path = name.startsWith(`${scope.rootDir}/`) ? name.slice(scope.rootDir.length + 1) : "";
  return /^(trash|tmp|staging)\/./.test(path) || path.endsWith(".tmp");
}

function machineDifferences(inventory: Inventory, machine: ExpectedMachine): Difference[] {
  const { rootDir, tag } = inventory.scope;
  const found: Difference[] = [];
  const missing = (resource: Resource, what: string): void => {
    found.push({ kind: "missing", resource, what, owner: `machine ${machine.id}` });
  };
  const folder = `${rootDir}/machines/${machine.id}`;
  const live = machine.phase === "running" || machine.phase === "starting";
  for (const file of MACHINE_FILES) {
    const item = find(inventory, "file", `${folder}/${file}`);
    // A machine that never ran has no log.
    if (item === undefined && (live || !WRITTEN_BY_VMM.test(file))) missing("file", `${folder}/${file}`);
    const uid = live && machine.vmm !== undefined ? machine.vmm.uid : 0;
    if (item !== undefined && file === "disk.img" && !item.value.endsWith(` ${uid}:${uid}`))
      found.push(difference("altered", item, `should be owned by ${uid}, is ${item.value}`));
  }
  for (const item of inventory.items) {
    const file = item.name.slice(folder.length + 1);
    if (item.resource !== "file" || !item.name.startsWith(`${folder}/`) || MACHINE_FILES.includes(file))
      continue;
    if (file !== MEMORY_BASE) found.push(difference("leaked", item, "a machine has no such file"));
    else if (!live) found.push(difference("leaked", item, "a machine that does not run has no memory"));
    else if (!item.value.endsWith(" 0:0"))
      found.push(difference("altered", item, `should be root's, is ${item.value}`));
  }
  const { slot, vmm } = machine;
  if (!live) {
    if (slot !== undefined)
      found.push({
        kind: "leaked",
        resource: "namespace",
        what: `slot ${slot} is held by a ${machine.phase} machine`,
        owner: `machine ${machine.id}`,
      });
    if (vmm !== undefined)
      found.push({
        kind: "leaked",
        resource: "process",
        what: `jail ${vmm.jail_id} is kept by a ${machine.phase} machine`,
        owner: `machine ${machine.id}`,
      });
    return found;
  }
  if (slot === undefined) missing("namespace", "the state names no slot");
  else {
    if (!find(inventory, "namespace", `ch-${tag}-${slot}`)) missing("namespace", `ch-${tag}-${slot}`);
    const tap = inventory.items.find(
      ({ resource, name, value }) =>
        resource === "link" && name.startsWith(`slot ${slot}: `) && value.includes('"type":"tap"'),
    );
    if (tap === undefined) missing("link", `a tap in slot ${slot}`);
    else if (vmm !== undefined && !tap.value.includes(`"user":${vmm.uid},`))
      found.push(difference("altered", tap, `should belong to ${vmm.uid}, is ${tap.value}`));
    if (!find(inventory, "link", `host: ch${tag}v${slot}`)) missing("link", `host: ch${tag}v${slot}`);
    if (machine.phase === "running" && !openedSlots(inventory).has(slot))
      missing("nft", `slot ${slot} in the set ${OPENED_SET}`);
  }
  if (vmm === undefined) missing("process", "the state names no VMM");
  else {
    const jail = inventory.items.filter(({ owner }) => owner?.of === "jail" && owner.id === vmm.jail_id);
    for (const resource of ["process", "cgroup", "file"] as const)
      if (!jail.some((item) => item.resource === resource)) missing(resource, `of jail ${vmm.jail_id}`);
    const processes = jail.filter(({ resource }) => resource === "process");
    if (vmm.pid !== undefined && processes.length > 0 && !processes.some(({ pid }) => pid === vmm.pid))
      missing("process", `pid ${vmm.pid} in jail ${vmm.jail_id}`);
  }
  return found;
}

function snapshotDifferences(inventory: Inventory, id: string): Difference[] {
  const folder = `${inventory.scope.rootDir}/snapshots/${id}`;
  const found: Difference[] = [];
  for (const file of SNAPSHOT_FILES) {
    const item = find(inventory, "file", `${folder}/${file}`);
    if (item === undefined)
      found.push({ kind: "missing", resource: "file", what: `${folder}/${file}`, owner: `snapshot ${id}` });
    else if (!item.value.endsWith(" 0:0"))
      found.push(difference("altered", item, `should be root's, is ${item.value}`));
  }
  for (const item of inventory.items) {
    const file = item.name.slice(folder.length + 1);
    if (item.resource !== "file" || !item.name.startsWith(`${folder}/`) || SNAPSHOT_FILES.includes(file))
      continue;
    if (!MORE_SNAPSHOT_FILES.includes(file))
      found.push(difference("leaked", item, "a snapshot has no such file"));
    else if (!item.value.endsWith(" 0:0"))
      found.push(difference("altered", item, `should be root's, is ${item.value}`));
  }
  return found;
}

/** Slots that no machine holds: ready-made ones, each whole and closed, and not more than the pool's size. */
function poolDifferences(inventory: Inventory, state: ExpectedState): Difference[] {
  const inUse = slotsInUse(state);
  const waiting = slotsPresent(inventory).filter((index) => !inUse.has(index));
  const found: Difference[] = [];
  if (state.daemonRuns && waiting.length > state.poolSize)
    found.push({
      kind: "leaked",
      resource: "namespace",
      what: `${waiting.length} slots wait, the pool holds ${state.poolSize}`,
    });
  for (const index of state.daemonRuns ? waiting : []) {
    const link = `host: ch${inventory.scope.tag}v${index}`;
    if (!find(inventory, "link", link))
      found.push({ kind: "missing", resource: "link", what: link, owner: `slot ${index}` });
  }
  for (const index of openedSlots(inventory)) {
    if (!inUse.has(index))
      found.push({
        kind: "leaked",
        resource: "nft",
        what: `slot ${index} is opened and no machine holds it`,
        owner: `slot ${index}`,
      });
  }
  return found;
}

function daemonDifferences(inventory: Inventory, state: ExpectedState): Difference[] {
  const { rootDir, tag } = inventory.scope;
  const needed: readonly (readonly [Resource, string])[] = [
    ["nft", `host: table inet computer-host-${tag}`],
    ["file", `/run/computer-host/claims/${tag}.json`],
    ["socket", `host: ${rootDir}/firecracker-host.sock`],
  ];
  return needed.flatMap(([resource, what]): Difference[] => {
    const there = find(inventory, resource, what) !== undefined;
    if (state.daemonRuns)
      return there ? [] : [{ kind: "missing", resource, what, owner: describeOwner({ of: "daemon" }) }];
    // The table and the claim stay for guests that go on; a socket that listens has a daemon behind it.
    return there && resource === "socket" ? [{ kind: "leaked", resource, what, owner: "daemon" }] : [];
  });
}

function slotsInUse(state: ExpectedState): Set<number> {
  return new Set(state.machines.flatMap(({ slot }) => (slot === undefined ? [] : [slot])));
}

function slotsPresent(inventory: Inventory): number[] {
  return inventory.items.flatMap(({ resource, owner }) =>
    resource === "namespace" && owner?.of === "slot" ? [owner.index] : [],
  );
}

function openedSlots(inventory: Inventory): Set<number> {
  return new Set(
    inventory.items.flatMap(({ resource, name, owner }) =>
      resource === "nft" && owner?.of === "slot" && elementOf(name)?.set === OPENED_SET ? [owner.index] : [],
    ),
  );
}

function find(inventory: Inventory, resource: Resource, name: string): Item | undefined {
  return inventory.items.find((item) => item.resource === resource && item.name === name);
}
