import { GUEST_NETWORK, type Slot } from "./types.ts";

/** The table in each slot's own namespace: the name is free there. */
export const SLOT_TABLE = "computer-host";

/**
 * The rules inside one slot, as one nftables transaction that also replaces what an earlier one left.
 *
 * One path leads through: the guest's own address and MAC out, answers and the host's own connections in.
 * Nothing ends in the namespace itself. A connection from beyond may not begin here even if the host's table let
 * it pass: so answers to a machine that had this address before never reach the one that has it now, because
 * the tracking table of a namespace begins empty. For the same reason a guest that was woken from a snapshot has no
 * connection here that it remembers: the next packet of each is answered with a reset, so that its programs connect
 * anew rather than wait.
 */
export function slotRules(slot: Slot): string {
  const { tap_device: tap, guest_address, guest_mac } = GUEST_NETWORK;
  return `add table inet ${SLOT_TABLE}
delete table inet ${SLOT_TABLE}
table inet ${SLOT_TABLE} {
  chain antispoof {
    type filter hook prerouting priority raw; policy drop;
    iifname "${tap}" ether saddr ${guest_mac} ip saddr ${guest_address} accept
    iifname "uplink0" ip daddr ${slot.runtime_host} accept
  }
  chain inbound_address {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "uplink0" dnat ip to ${guest_address}
  }
  chain outbound_address {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "uplink0" snat ip to ${slot.runtime_host}
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "${tap}" meta l4proto tcp ct state invalid reject with tcp reset
    ct state invalid drop
    iifname "${tap}" oifname "uplink0" accept
    iifname "uplink0" oifname "${tap}" ct state established accept
    iifname "uplink0" oifname "${tap}" ct state related icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
    iifname "uplink0" oifname "${tap}" ip saddr ${slot.host_address} ct state new accept
  }
  chain input {
    type filter hook input priority filter; policy drop;
  }
  chain output {
    type filter hook output priority filter; policy drop;
    icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
    oifname "${tap}" tcp flags & rst == rst accept
  }
}
`;
}
