/**
 * Boots a kernel under KVM once and remembers whether it got anywhere: set-up runs this, so that the first jail
 * need not. `probe-kvm <kernel image>` prints `kvm` or `tcg`.
 */
import { probeKvm } from "./shared/accelerator.ts";

const [kernel] = process.argv.slice(2);
if (kernel === undefined) {
  console.error("usage: probe-kvm <kernel image>");
  process.exitCode = 2;
} else {
  console.log(probeKvm(kernel) ? "kvm" : "tcg");
}
