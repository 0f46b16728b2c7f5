/**
 * Boots a kernel under KVM once a boot of this host and remembers whether it got anywhere: set-up and the service run
 * this, so that the first jail need not. `probe-kvm <kernel image>` prints `kvm` or `tcg`.
 */
import { probeKvm, readRecord } from "./shared/accelerator.ts";

const [kernel] = process.argv.slice(2);
if (kernel === undefined) {
  console.error("usage: probe-kvm <kernel image>");
  process.exitCode = 2;
} else {
  console.log((readRecord() ?? probeKvm(kernel)) ? "kvm" : "tcg");
}
