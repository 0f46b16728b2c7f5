import assert from "node:assert/strict";
import { inUse } from "../../src/host/in-use.ts";
import { FakeNetwork } from "./fakes/network.ts";
import { FakeVmms } from "./fakes/vmms.ts";
import { type FakeHost, makeFakeHost } from "./fake-host.ts";

/** Calls that only compute: there is nothing to be cut off. */
const COMPUTES = new Set(["slot", "machineFiles", "newJailId", "loginKey"]);

/**
 * What goes wrong between a daemon and its rooms, once it is armed, at the call of that number: `cut`, the daemon is
 * gone after that call had its effect; `fail`, that one call fails before it has any; `fail for good`, that one and all
 * after it do, until the trouble ends.
 */
export class Trouble {
  readonly #kind: "cut" | "fail" | "fail for good";
  #left = Number.POSITIVE_INFINITY;
  readonly #gone = Promise.withResolvers<void>();

  constructor(kind: "cut" | "fail" | "fail for good") {
    this.#kind = kind;
  }

  /** Resolves when the daemon is gone. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  /** True when it has come to the call. */
  get happened(): boolean {
    return this.#left <= 0;
  }

  arm(calls: number): void {
    this.#left = calls;
  }

  /** From now on nothing goes wrong any more. */
  end(): void {
    this.#left = Number.POSITIVE_INFINITY;
  }

  /** The room as the daemon sees it: once that is gone, no call of it begins and none returns. */
  wire<Room extends object>(room: Room): Room {
    return new Proxy(room, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== "function") return value;
        if (COMPUTES.has(String(name))) return value.bind(target) as unknown;
        return async (...values: unknown[]): Promise<unknown> => {
          const cut = this.#kind === "cut";
          if (cut && this.happened) return await never();
          this.#left -= 1;
          const now = this.#left === 0;
          if (now && this.#kind === "fail") throw new Error(`${String(name)} fails`);
          if (this.happened && this.#kind === "fail for good") throw new Error(`${String(name)} fails`);
          const result: unknown = await Reflect.apply(value, target, values);
          if (now) this.#gone.resolve();
          if (cut && this.happened) return await never();
          const isVmm = name === "launch" || name === "adopt";
          return isVmm && typeof result === "object" && result !== null ? this.wire(result) : result;
        };
      },
    });
  }
}

function never(): Promise<never> {
  return Promise.withResolvers<never>().promise;
}

/** What a start finds on the host: VMs that live on, slots as the network room sweeps them, and nobody who watches. */
export async function restarted(
  before: FakeHost,
  trouble: Trouble | undefined,
  bootId?: string,
): Promise<FakeHost> {
  for (const jail of before.vmms.jails.values()) jail.watchers.clear();
  const network = new FakeNetwork();
  await network.open(inUse(before.state).slots);
  const { state, storage, guests } = before;
  const vmms = new FakeVmms(before.vmms.jails);
  if (bootId !== undefined) vmms.bootId = bootId;
  const rooms = { state, storage, guests, vmms, network };
  const wire = <Room extends object>(room: Room): Room => trouble?.wire(room) ?? room;
  const wired = {
    state: wire(state),
    storage: wire(storage),
    guests: wire(guests),
    vmms: wire(vmms),
    network: wire(network),
  };
  return Object.assign(await makeFakeHost({ rooms: wired }), rooms);
}

/** The host holds what the records say and nothing else, and nothing is under way. */
export async function assertMatches(
  { state, network, storage, vmms, host }: FakeHost,
  when: string,
): Promise<void> {
  const machines = [...state.state.machines.values()];
  const running = machines.filter(({ phase }) => phase === "running");
  const slots = new Set(machines.flatMap(({ slot }) => (slot === undefined ? [] : [slot.index])));
  const guests = machines.flatMap(({ vmm, paused }) =>
    vmm === undefined ? [] : [[vmm.jail_id, paused === true ? "paused" : "running"] as const],
  );
  assert.deepEqual(
    {
      slots: network.held,
      open: network.open_egress,
      guests: new Map([...vmms.jails].map(([id, jail]) => [id, jail.state])),
      disks: new Map([...storage.machines].map(([id, { disk }]) => [id, disk])),
      bases: [...storage.machines].flatMap(([id, { memoryBase }]) => (memoryBase === undefined ? [] : [id])),
      snapshots: new Map(
        [...storage.snapshots].map(([id, { finished, size, files = new Set<string>() }]) => [
          id,
          { finished, size, files: [...files].sort() },
        ]),
      ),
      operations: [...state.state.operations.keys()],
      memory: (await host.health()).memory.committed_mib,
    },
    {
      slots,
      open: slots,
      guests: new Map(guests),
      disks: new Map(machines.map(({ id, storage_bytes }) => [id, storage_bytes])),
      bases: machines.flatMap(({ id, has_memory_base }) => (has_memory_base === true ? [id] : [])),
      snapshots: new Map(
        [...state.state.snapshots.values()].map(({ id, disk, memory }) => [
          id,
          {
            finished: true,
            size: disk.size_bytes,
            files: ["disk", "manifest", ...(memory === undefined ? [] : ["memory", "vmstate"])].sort(),
          },
        ]),
      ),
      operations: [],
      memory: running.reduce((sum, { memory_mib }) => sum + memory_mib, 0),
    },
    when,
  );
}
