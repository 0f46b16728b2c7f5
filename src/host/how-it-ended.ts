import type { Ended } from "../contract/machine.ts";
import type { MachineRecord } from "../model/records.ts";
import type { HostContext } from "./context.ts";

export const CONSOLE_TAIL_BYTES = 4096;
const LOG_TAIL_BYTES = 4096;

/**
 * How a machine ended that nobody stopped, read from what its VMM and its guest wrote last; and the error that its record
 * tells, unless its guest ended by itself.
 */
export async function howItEnded(
  { storage, vmms, clock }: HostContext,
  { id, vmm }: MachineRecord,
): Promise<{ ended: Ended; error?: string }> {
  const files = storage.machineFiles(id);
  const console_tail = await storage.tail(files.console, CONSOLE_TAIL_BYTES);
  const log = await storage.tail(files.vmmLog, LOG_TAIL_BYTES);
  const tell = (how: Ended["how"]): Ended => ({ at: clock.now(), how, console_tail });
  const boot = vmm?.process?.boot_id;
  if (boot !== undefined && boot !== vmms.bootId)
    return { ended: tell("host_restarted"), error: "the host was restarted while the machine ran" };
  const unexpectedly = (how: string): string =>
    `the VMM ended unexpectedly: ${how}; the console's last line was: ${lastLineOf(console_tail)}`;
  const panic = /^.*kernel panic.*$/im.exec(console_tail)?.[0];
  if (panic !== undefined)
    return { ended: tell("panic"), error: unexpectedly("the guest's kernel panicked") };
  if (/exiting successfully/i.test(log)) return { ended: tell("reset") };
  // A VMM that fails says so; one that is killed says nothing.
  const last = lastLineOf(log);
  if (/\berror\b|panicked/i.test(last)) return { ended: tell("unknown"), error: unexpectedly(last) };
  return { ended: tell("killed"), error: unexpectedly("it was killed") };
}

function lastLineOf(text: string): string {
  return text.trimEnd().split("\n").at(-1) ?? "";
}
