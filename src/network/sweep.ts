import { existsSync, readdirSync } from "node:fs";
import { NETNS_DIR, type SlotNames, type SlotPlan } from "./plan.ts";

/**
 * Slots of this plan of which anything is on the host, found by name: also halves that a killed daemon left, numbers
 * that nobody has written down, and numbers that only an earlier, larger pool had.
 */
export function findSlots(plan: SlotPlan): SlotNames[] {
  const names = [
    ...(existsSync(NETNS_DIR) ? readdirSync(NETNS_DIR) : []),
    ...readdirSync("/proc/sys/net/ipv4/conf"),
  ];
  const indices = new Set(names.flatMap((name) => plan.indexOf(name) ?? []));
  return [...indices].sort((a, b) => a - b).map((index) => plan.names(index));
}
