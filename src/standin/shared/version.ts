/**
 * The version that the stand-ins give. It names the Firecracker whose behaviour they follow, and says in its
 * build part that QEMU is underneath, so that nobody takes a stand-in for the real program.
 */
export const VERSION = "1.17.0-qemu";
