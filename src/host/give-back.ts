import { messageOf } from "../contract/errors.ts";
import type { MachineId } from "../contract/ids.ts";
import type { Slot } from "../network/types.ts";
import type { HostContext } from "./context.ts";
import type { Trace } from "./trace.ts";

/**
 * Lets go of the VMM of a machine that has ended, and gives back its memory and its slot; no record names them any
 * more. Until then the VMM stays among the living: a death that could not be recorded is looked at again.
 */
export async function giveBack(
  context: HostContext,
  id: MachineId,
  slot: Slot | undefined,
  trace: Trace,
): Promise<void> {
  const { live, admission } = context;
  const ended = live.get(id);
  live.delete(id);
  admission.release(id);
  await giveBackSlot(context, slot, trace);
  await ended?.detach();
}

/**
 * Gives a slot back, once no record names it any more. Before that, whatever fails next would leave a record that names
 * a slot which another machine may have by then, and the next try would take it from that machine. What cannot be
 * given back is out of use until the next start, which removes slots that no record names.
 */
export async function giveBackSlot(
  { network }: HostContext,
  slot: Slot | undefined,
  trace: Trace,
): Promise<void> {
  if (slot === undefined) return;
  try {
    await trace.step("slot", () => network.release(slot));
  } catch (error) {
    trace.log.error({ slot: slot.netns, reason: messageOf(error) }, "a slot could not be given back");
  }
}
