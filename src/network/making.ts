import { existsSync, statSync } from "node:fs";
import { run } from "../system/run.ts";
import { NETNS_DIR, type SlotNames } from "./plan.ts";
import { slotRules } from "./slot-rules.ts";
import { GUEST_NETWORK, type Slot } from "./types.ts";

/** Tens of milliseconds, unless the host is badly overloaded. */
const MAKING_TIMEOUT_MS = 20_000;
/** Unmaking many at once after a crash waits on the kernel for each. */
const UNMAKING_TIMEOUT_MS = 60_000;
const UNMAKING_BATCH = 64;

/**
 * Runs on the host. A process costs about 2 ms and a spawn from Node more, so a slot is made by one spawn and a few
 * processes: a shell ends by becoming the next program where it can. The text is constant, what differs are arguments.
 * The host's end has no IPv6 and takes no redirects; forwarding is set for it alone, not for the whole host.
 */
const HOST_SCRIPT = `set -eu
batch=$1 device=$2 netns=$3; shift 3
ip -batch - <<END
$batch
END
conf=/proc/sys/net/ipv4/conf/$device
echo 1 > $conf/forwarding
echo 1 > $conf/rp_filter
echo 0 > $conf/accept_redirects
if [ -e /proc/sys/net/ipv6/conf/$device ]; then echo 1 > /proc/sys/net/ipv6/conf/$device/disable_ipv6; fi
exec nsenter --net=$netns sh -c "$1" slot "$2" "$3"
`;

/** Runs in the slot's namespace; nft's text comes on standard input. */
const SLOT_SCRIPT = `set -eu
cd /proc/sys/net
if [ -e ipv6/conf/all ]; then echo 1 > ipv6/conf/all/disable_ipv6; echo 1 > ipv6/conf/default/disable_ipv6; fi
echo 1 > ipv4/ip_forward
for name in all default uplink0; do
  echo 1 > ipv4/conf/$name/rp_filter
  echo 1 > ipv4/conf/$name/arp_ignore
  echo 0 > ipv4/conf/$name/accept_redirects
  echo 0 > ipv4/conf/$name/send_redirects
  echo 0 > ipv4/conf/$name/accept_source_route
done
tap=
if ! [ -e ipv4/conf/${GUEST_NETWORK.tap_device} ]; then tap=$1; fi
ip -batch - <<END
$tap
$2
END
nft -f -
cd netfilter
# Behind the rules, which bring the tracking of connections: these two make "invalid" mean "of no connection known here".
echo 0 > nf_conntrack_tcp_loose
echo 1 > nf_conntrack_tcp_be_liberal
`;

/**
 * Makes the slot on the host, or what is missing of it: what is there stays, so the tap under a running VMM does too.
 * Undoes nothing when it throws: the caller knows whether the slot was in use.
 */
export async function makeSlot(slot: Slot, signal?: AbortSignal): Promise<void> {
  const {
    tap_device: tap,
    gateway_address,
    prefix_length,
    guest_address,
    gateway_mac,
    guest_mac,
  } = GUEST_NETWORK;
  const host = [
    // The name can outlive its namespace: a crash between making the file and mounting on it leaves a plain file.
    ...(existsSync(slot.netns_path) && !isNamespace(slot.netns_path) ? [`netns del ${slot.netns}`] : []),
    ...(isNamespace(slot.netns_path) ? [] : [`netns add ${slot.netns}`]),
    ...(deviceExists(slot.host_device)
      ? []
      : [`link add ${slot.host_device} type veth peer name uplink0 netns ${slot.netns}`]),
    // An address of its own would come with "up", before the sysctl below; a kernel without IPv6 refuses the word.
    `link set ${slot.host_device} ${existsSync("/proc/sys/net/ipv6/conf") ? "addrgenmode none " : ""}up`,
    `addr replace ${slot.host_address}/31 dev ${slot.host_device}`,
  ];
  const tapBatch = [
    `tuntap add dev ${tap} mode tap user ${slot.uid} group ${slot.gid}`,
    `link set ${tap} address ${gateway_mac}`,
  ];
  const inside = [
    `link set uplink0 up`,
    `link set ${tap} up`,
    `addr replace ${slot.runtime_host}/31 dev uplink0`,
    `addr replace ${gateway_address}/${prefix_length} dev ${tap}`,
    // Without this a connection that comes before the guest is up waits for the next ARP probe: up to a second.
    `neigh replace ${guest_address} lladdr ${guest_mac} dev ${tap} nud permanent`,
    `route replace default via ${slot.host_address} dev uplink0`,
  ];
  await run(
    [
      "sh",
      "-c",
      HOST_SCRIPT,
      "slot",
      host.join("\n"),
      slot.host_device,
      slot.netns_path,
      SLOT_SCRIPT,
      tapBatch.join("\n"),
      inside.join("\n"),
    ],
    { input: slotRules(slot), timeoutMs: MAKING_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) },
  );
}

/**
 * Unmakes slots, also half-made ones and ones that are not there. The host's end goes at once; the tap goes with
 * the namespace, in the kernel's own time. Throws when something of a slot is still there afterwards.
 */
export async function unmakeSlots(slots: readonly SlotNames[]): Promise<void> {
  for (let start = 0; start < slots.length; start += UNMAKING_BATCH) {
    const batch: string[] = [];
    for (const slot of slots.slice(start, start + UNMAKING_BATCH)) {
      if (deviceExists(slot.host_device)) batch.push(`link del ${slot.host_device}`);
      if (existsSync(slot.netns_path)) batch.push(`netns del ${slot.netns}`);
    }
    if (batch.length === 0) continue;
    await run(["ip", "-force", "-batch", "-"], {
      input: `${batch.join("\n")}\n`,
      timeoutMs: UNMAKING_TIMEOUT_MS,
      // What vanished in between is an error to `ip` and none to us: the check below decides.
      okCodes: [0, 1],
    });
  }
  const left = slots.filter(slotExists).map(({ netns }) => netns);
  if (left.length > 0) throw new Error(`These slots could not be removed from the host: ${left.join(", ")}.`);
}

/** True when anything of the slot is on the host. */
export function slotExists(slot: SlotNames): boolean {
  return deviceExists(slot.host_device) || existsSync(slot.netns_path);
}

/** The kernel keeps this folder for each device of the caller's own namespace, whatever is mounted on /sys. */
function deviceExists(device: string): boolean {
  return existsSync(`/proc/sys/net/ipv4/conf/${device}`);
}

/** True when a namespace is mounted at `path`: it then lies on another filesystem than its folder. */
export function isNamespace(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.dev !== statSync(NETNS_DIR).dev;
}
