import { machineId, snapshotId } from "../../../src/contract/ids.ts";
import type { Host } from "../../../src/host/host.ts";
import { crashMatrix, type Scenario } from "../../support/crash-matrix.ts";
import type { FakeHost } from "../../support/fake-host.ts";

const one = machineId("one");
const far = snapshotId("far");

/** What there is of each machine: a source that is paused or has no base any more would show. */
const machines = ({ host }: FakeHost): unknown =>
  host
    .listMachines()
    .map(({ id, phase, paused, receipt }) => [id, phase, paused ?? false, receipt?.every(({ done }) => done)])
    .sort(([a], [b]) => (String(a) < String(b) ? -1 : 1));
const SOURCE = ["one", "running", false, undefined];
const kid = (number: number) => [`kid-${number}`, "running", false, true];

const forkOfTwo = (host: Host) => host.fork(one, { count: 2, id_prefix: "kid-" }, host.trace());

const withFar = async (host: Host, { storage }: FakeHost) => {
  await host.snapshot(one, { snapshot_id: "far", memory: true }, host.trace());
  storage.remote.set(far, await storage.readManifest(far));
  await host.deleteSnapshot(far, host.trace());
};

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "fork of two": { run: forkOfTwo, ends: machines, found: [[kid(1), kid(2), SOURCE], [SOURCE]] },
  "fork of a paused machine": {
    before: (host) => host.pause(one, host.trace()),
    run: forkOfTwo,
    ends: machines,
    found: [[kid(1), kid(2), ["one", "running", true, undefined]], [["one", "running", true, undefined]]],
  },
  "fork of a machine with a memory base": {
    before: (host) => host.snapshot(one, { snapshot_id: "m1", memory: true }, host.trace()),
    run: (host) => host.fork(one, { machine_id: "kid-1" }, host.trace()),
    ends: machines,
    found: [[kid(1), SOURCE], [SOURCE]],
  },
  "resize of a running machine": {
    run: (host) => host.resize(one, { storage_bytes: 2 ** 30 }, host.trace()),
    ends: ({ host }) => {
      const { phase, storage_bytes } = host.getMachine(one);
      return [phase, storage_bytes];
    },
    found: [["running", 2 ** 30]],
  },
  "live restore of a snapshot of another host": {
    before: withFar,
    run: (host) => {
      const remote = { snapshot_id: "far", machine_id: "one", image_id: "debian-slim", artifacts: [] };
      return host.restore(far, { machine_id: "kid-1", snapshot: remote }, host.trace());
    },
    ends: (fakes) => [
      machines(fakes),
      fakes.host
        .listSnapshots(one)
        .map(({ id }) => id)
        .sort(),
    ],
    found: [
      [
        [kid(1), SOURCE],
        ["far", "s1"],
      ],
      [[SOURCE], ["s1"]],
    ],
  },
};

crashMatrix(SCENARIOS);
