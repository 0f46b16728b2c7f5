import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expectDone } from "./api.ts";
import { cpioOf } from "./cpio.ts";
import { Vmm, type VmmOptions } from "./vmm.ts";

const IMAGE = join(process.env["IMAGE_DIR"] ?? "/var/cache/computer-host/images", "debian-slim");
const INITRD = join(IMAGE, "..", "initrd.cpio");
const BOOT_TIMEOUT_MS = 60_000;
/** A kernel that boots at all does so in a fraction of this on a real VMM. */
const PROBE_TIMEOUT_MS = 15_000;

/**
 * Takes the place of the image's init: it loads the image's modules, tells on the console what the machine
 * looks like from inside, and ends it on Ctrl-Alt-Del. Nothing is mounted, so disks may hold anything.
 */
const INIT = `#!/bin/busybox sh
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs dev /dev
for module in /modules/*.ko; do $bb insmod $module 2>/dev/null; done
$bb usleep 300000
echo "cpus: $($bb grep -c ^processor /proc/cpuinfo)"
for disk in vda vdb; do
  [ -e /sys/block/$disk ] || continue
  echo "$disk: $($bb cat /sys/block/$disk/size) $($bb cat /sys/block/$disk/ro) $($bb head -c 5 /dev/$disk)"
done
if [ -e /sys/block/vda ] && echo wrote | $bb dd of=/dev/vda conv=fsync 2>/dev/null; then echo "vda_write: done"; fi
[ ! -e /sys/block/vdb ] || echo wrote | $bb dd of=/dev/vdb conv=fsync 2>/dev/null || echo "vdb_write: refused"
[ ! -e /sys/class/net/eth0 ] || echo "eth0: $($bb cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu | $bb tr '\\n' ' ')"
[ ! -e /dev/hwrng ] || echo "entropy: $($bb head -c 16 /dev/hwrng | $bb wc -c)"
echo 0 >/proc/sys/kernel/ctrl-alt-del
trap 'echo "ctrl-alt-del"; $bb reboot -f' INT
echo "linux-guest up"
tick=0
while :; do tick=$((tick + 1)); echo "tick $tick"; $bb usleep 100000; done
`;

/** Why no Linux guest can be tried here, or false. */
export async function linuxCannotBoot(): Promise<string | false> {
  if (!existsSync(join(IMAGE, "vmlinux")) || !existsSync(INITRD)) {
    return `there is no image in ${IMAGE}: make images builds it`;
  }
  // The stand-ins must boot Linux anywhere. A real Firecracker does so only where KVM is a whole one.
  if (process.env["FIRECRACKER_BINARY_PATH"] === undefined) return false;
  try {
    await using _vmm = await bootLinux({}, async () => undefined, PROBE_TIMEOUT_MS);
    return false;
  } catch (error) {
    return `this pair boots no Linux here: ${String(error).slice(0, 200)}`;
  }
}

/**
 * Boots the image's kernel with the init above and waits until it has told what it sees. `configure` adds
 * devices before the start. The arguments are what one gives a Firecracker; what more a stand-in's kernel
 * needs is the stand-in's affair.
 */
export async function bootLinux(
  options: VmmOptions,
  configure: (vmm: Vmm) => Promise<unknown>,
  timeoutMs = BOOT_TIMEOUT_MS,
): Promise<Vmm> {
  const vmm = await Vmm.start(options);
  try {
    const initrd_path = vmm.dir.file("initrd");
    const parts = [INITRD, join(IMAGE, "modules.cpio")].map((file) => readFileSync(file));
    writeFileSync(initrd_path, Buffer.concat([...parts, cpioOf("init", INIT)]));
    const kernel_image_path = join(IMAGE, "vmlinux");
    const boot_args = "console=ttyS0 quiet reboot=k panic=-1";
    expectDone(await vmm.call("PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 256 }));
    expectDone(await vmm.call("PUT", "/boot-source", { kernel_image_path, initrd_path, boot_args }));
    expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath }));
    await configure(vmm);
    expectDone(await vmm.call("PUT", "/actions", { action_type: "InstanceStart" }));
    await vmm.console.waitForText("linux-guest up", timeoutMs);
  } catch (error) {
    await vmm[Symbol.asyncDispose]();
    throw error;
  }
  return vmm;
}
