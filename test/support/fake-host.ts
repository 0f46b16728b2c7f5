import { Host } from "../../src/host/host.ts";
import { systemClock } from "../../src/system/clock.ts";
import { silentLog } from "../../src/system/log.ts";
import { FakeGuests } from "./fakes/guests.ts";
import { FakeNetwork } from "./fakes/network.ts";
import { FakeState } from "./fakes/state.ts";
import { FakeStorage } from "./fakes/storage.ts";
import { FakeVmms } from "./fakes/vmms.ts";

/** The host room on fakes of all rooms below it, with everything within a test's reach. */
export async function makeFakeHost(
  options: {
    slots?: number;
    readyTimeoutMs?: number;
    reconcileIntervalMs?: number;
    closeTimeoutMs?: number;
    rooms?: Partial<FakeRooms>;
  } = {},
) {
  const rooms: FakeRooms = {
    state: new FakeState(),
    network: new FakeNetwork(options.slots),
    storage: new FakeStorage(),
    guests: new FakeGuests(),
    vmms: new FakeVmms(),
    ...options.rooms,
  };
  const host = new Host(
    { ...rooms, clock: systemClock, log: silentLog },
    {
      rootDir: "/fake",
      tag: "fake00",
      defaultImage: "debian-slim",
      driveIoEngine: "Sync",
      enablePci: false,
      memoryOvercommit: 1,
      readyTimeoutMs: options.readyTimeoutMs ?? 1000,
      stopTimeoutMs: 200,
      reconcileIntervalMs: options.reconcileIntervalMs ?? 60_000,
      startWarnings: [],
    },
    options.closeTimeoutMs,
  );
  await host.open();
  return { ...rooms, host, trace: () => host.trace(), [Symbol.asyncDispose]: () => host.close() };
}

export interface FakeRooms {
  readonly state: FakeState;
  readonly network: FakeNetwork;
  readonly storage: FakeStorage;
  readonly guests: FakeGuests;
  readonly vmms: FakeVmms;
}

export type FakeHost = Awaited<ReturnType<typeof makeFakeHost>>;
