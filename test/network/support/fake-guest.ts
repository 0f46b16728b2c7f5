import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";
import { GUEST_NETWORK, type Slot } from "../../../src/network/types.ts";
import { run } from "../../../src/system/run.ts";
import { type Place, placeIn } from "../../support/playground.ts";

/** A guest without a VMM: a namespace that is plugged into the slot where the tap was. */
export interface FakeGuest extends AsyncDisposable {
  readonly place: Place;
  /** The slot's own namespace, to look at or to lift a rule in. */
  readonly slotPlace: Place;
  /**
   * Goes on in another slot, as a guest does that is woken from a snapshot: its connections are as they were. Returns
   * that slot's namespace.
   */
  wakeIn(slot: Slot): Promise<Place>;
}

const PROBE = fileURLToPath(new URL("probe.ts", import.meta.url));

/**
 * Plugs a guest into a slot: the tap gives way to one end of a veth pair with the tap's name, MAC and address, so that
 * the slot's rules, which go by name, hold for it. The other end is the guest's eth0, set up as the initrd sets it up.
 * Fails when the tap is not there or does not belong to the slot's uid, since a VMM could not open it then.
 */
export async function plugGuest(slot: Slot): Promise<FakeGuest> {
  const place = placeIn(`chguest-${randomBytes(4).toString("hex")}`);
  await run(["ip", "netns", "add", place.netns]);
  const slotPlace = await plug(place, slot);
  await place.run(["ip", "link", "set", "lo", "up"]);
  return {
    place,
    slotPlace,
    wakeIn: async (other) => {
      // With one end of the pair the guest's goes too.
      await slotPlace.run(["ip", "link", "del", slot.tap_device]);
      return await plug(place, other);
    },
    [Symbol.asyncDispose]: async () => {
      await run(["ip", "netns", "del", place.netns]);
    },
  };
}

async function plug(place: Place, slot: Slot): Promise<Place> {
  const { guest_address, gateway_address, gateway_mac, guest_mac, prefix_length } = GUEST_NETWORK;
  const slotPlace = placeIn(slot.netns);
  const { stdout } = await slotPlace.run(["ip", "-d", "-j", "link", "show", "dev", slot.tap_device]);
  const [tap] = JSON.parse(stdout) as [{ address: string; linkinfo: { info_data: Record<string, unknown> } }];
  const { type, user, group } = tap.linkinfo.info_data;
  if (
    type !== "tap" ||
    Number(user) !== slot.uid ||
    Number(group) !== slot.gid ||
    tap.address !== gateway_mac
  ) {
    throw new Error(`the slot has no tap that its VMM can use: ${stdout}`);
  }
  await slotPlace.run(["ip", "-batch", "-"], {
    input: `link del ${slot.tap_device}
link add ${slot.tap_device} address ${gateway_mac} type veth peer name eth0 address ${guest_mac} netns ${place.netns}
addr add ${gateway_address}/${prefix_length} dev ${slot.tap_device}
link set ${slot.tap_device} up
neigh replace ${guest_address} lladdr ${guest_mac} dev ${slot.tap_device} nud permanent
`,
  });
  await place.run(["ip", "-batch", "-"], {
    input: `addr add ${guest_address}/${prefix_length} dev eth0
link set eth0 up
route add default via ${gateway_address}
`,
  });
  return slotPlace;
}

export type ProbeKind = "tcp" | "udp" | "dns-tcp" | "dns-udp" | "say";

/** A positive probe may wait for a busy machine; what has not come after a tenth of that does not come. */
const PATIENCE_MS = 5000;
const DENIED_AFTER_MS = 500;

/** What a probe of `probe.ts` heard, or undefined when nothing came in time or it was refused. */
export async function probe(
  place: Place,
  kind: ProbeKind,
  address: string,
  port: number,
  options: { from?: string; text?: string; patienceMs?: number } = {},
): Promise<string | undefined> {
  const { from = "", text = "", patienceMs = kind === "say" ? DENIED_AFTER_MS : PATIENCE_MS } = options;
  const { stdout } = await place.run([
    process.execPath,
    PROBE,
    String(patienceMs),
    kind,
    address,
    String(port),
    from,
    text,
  ]);
  return stdout === "" ? undefined : stdout;
}

/** Throws when a probe hears anything. */
export async function denied(place: Place, kind: ProbeKind, address: string, port: number): Promise<void> {
  const heard = await probe(place, kind, address, port, { patienceMs: DENIED_AFTER_MS });
  assert.equal(heard, undefined, `${kind} to ${address} port ${port} must not get through`);
}
