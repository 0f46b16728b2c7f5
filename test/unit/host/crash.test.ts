import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { Host } from "../../../src/host/host.ts";
import { crashMatrix, type Scenario } from "../../support/crash-matrix.ts";
import type { FakeHost } from "../../support/fake-host.ts";

const one = machineId("one");
const s1 = snapshotId("s1");

const phases = ({ host }: FakeHost): string =>
  host
    .listMachines()
    .map(({ id, phase }) => `${id} ${phase}`)
    .join(", ");

const wholly = ({ host }: FakeHost): unknown =>
  host
    .listMachines()
    .map(({ id, phase, paused, memory_mib, storage_bytes, runtime_host, hostname }) => [
      `${id} ${phase}${paused === true ? " paused" : ""}`,
      memory_mib,
      storage_bytes / 2 ** 20,
      runtime_host,
      hostname,
    ]);
const AT_SLOT_0 = "10.200.0.1";

/** By id: two may be made within the same millisecond. */
const kinds = (host: Host): string[] =>
  host
    .listSnapshots(one)
    .map(({ id, memory }) => `${id} ${memory}`)
    .sort();
/** Whether the machine has memory that a diff could stand on, beside the ids of its snapshots. */
const withMemory = ({ host, state }: FakeHost): unknown => [
  state.state.machines.get(one)?.has_memory_base ?? false,
  kinds(host),
];
const takeFull = (host: Host) => host.snapshot(one, { snapshot_id: "m1", memory: true }, host.trace());

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  create: {
    run: (host) => host.create({ machine_id: "two" }, host.trace()),
    ends: phases,
    found: ["one running, two running", "one running"],
  },
  restore: {
    run: (host) => host.restore(s1, { machine_id: "two" }, host.trace()),
    ends: phases,
    found: ["one running, two running", "one running"],
  },
  stop: { run: (host) => host.stop(one, host.trace()), ends: phases, found: ["one stopped"] },
  delete: { run: (host) => host.delete(one, host.trace()), ends: phases, found: [""] },
  start: {
    before: (host) => host.stop(one, host.trace()),
    run: (host) => host.start(one, host.trace()),
    ends: wholly,
    found: [[["one running", 512, 512, AT_SLOT_0, "one"]], [["one stopped", 512, 512, undefined, "one"]]],
  },
  pause: {
    run: (host) => host.pause(one, host.trace()),
    ends: wholly,
    found: [
      [["one running paused", 512, 512, AT_SLOT_0, "one"]],
      [["one running", 512, 512, AT_SLOT_0, "one"]],
    ],
  },
  resume: {
    before: (host) => host.pause(one, host.trace()),
    run: (host) => host.resume(one, host.trace()),
    ends: wholly,
    found: [
      [["one running", 512, 512, AT_SLOT_0, "one"]],
      [["one running paused", 512, 512, AT_SLOT_0, "one"]],
    ],
  },
  resize: {
    before: (host) => host.stop(one, host.trace()),
    run: (host) => host.resize(one, { memory_mib: 256, storage_bytes: 2 ** 30 }, host.trace()),
    ends: wholly,
    found: [[["one stopped", 256, 1024, undefined, "one"]]],
  },
  "stop of a paused machine": {
    before: (host) => host.pause(one, host.trace()),
    run: (host) => host.stop(one, host.trace()),
    ends: phases,
    found: ["one stopped"],
  },
  "snapshot of a paused machine": {
    before: (host) => host.pause(one, host.trace()),
    run: (host) => host.snapshot(one, { snapshot_id: "s2" }, host.trace()),
    ends: ({ host }) => [host.getMachine(one).paused, ...host.listSnapshots(one).map(({ id }) => id)],
    found: [
      [true, "s1", "s2"],
      [true, "s1"],
    ],
  },
  snapshot: {
    run: (host) => host.snapshot(one, { snapshot_id: "s2" }, host.trace()),
    ends: ({ host }) => host.listSnapshots(one).map(({ id }) => id),
    found: [["s1", "s2"], ["s1"]],
  },
  "snapshot with memory": {
    run: (host) => host.snapshot(one, { snapshot_id: "m1", memory: true }, host.trace()),
    ends: withMemory,
    found: [
      [true, ["m1 full", "s1 none"]],
      [false, ["s1 none"]],
    ],
  },
  "diff on a full snapshot": {
    before: takeFull,
    run: (host) => host.snapshot(one, { snapshot_id: "m2", memory: "diff" }, host.trace()),
    ends: ({ host }) => kinds(host),
    found: [
      ["m1 full", "m2 diff", "s1 none"],
      ["m1 full", "s1 none"],
    ],
  },
  "live restore": {
    before: takeFull,
    run: (host) => host.restore(snapshotId("m1"), { machine_id: "two" }, host.trace()),
    ends: ({ host }) =>
      host.listMachines().map(({ id, phase, receipt }) => [id, phase, receipt?.every(({ done }) => done)]),
    found: [
      [
        ["one", "running", undefined],
        ["two", "running", true],
      ],
      [["one", "running", undefined]],
    ],
  },
  "stop of a machine with a memory base": {
    before: takeFull,
    run: (host) => host.stop(one, host.trace()),
    ends: phases,
    found: ["one stopped"],
  },
  "delete of a snapshot": {
    run: (host) => host.deleteSnapshot(s1, host.trace()),
    ends: ({ host }) => host.listSnapshots(one).map(({ id }) => id),
    found: [[]],
  },
};

crashMatrix(SCENARIOS);
