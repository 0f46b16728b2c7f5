#!/bin/bash
# Builds the disk, kernel and initrd of the lab: a whole small host (Debian 12 with systemd, cgroup v2 and KVM) for a
# VM. Prints the folder that holds them. Kept by a digest of the recipe, so that a second run has nothing to do.
#
# Usage: build.sh [CACHE]   CACHE: folder for results (default /var/cache/computer-host/lab)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
guest=$here/../../guest
# shellcheck source=../../guest/lib/say.sh
. "$guest/lib/say.sh"
# shellcheck source=../../guest/lib/apt.sh
. "$guest/lib/apt.sh"
# shellcheck source=../../guest/lib/cpio.sh
. "$guest/lib/cpio.sh"
# shellcheck source=../../guest/lib/base.sh
. "$guest/lib/base.sh"

# What a host of the daemon has: the init system, the network's tools, a VMM for the stand-ins, SSH to get in.
packages=(
  systemd-sysv udev dbus kmod procps mount util-linux
  nftables iproute2 conntrack libatomic1
  qemu-system-x86
  openssh-client openssh-server ca-certificates curl
  e2fsprogs busybox-static
)
# Drivers of the lab's own disk and network card, in the order of their dependencies.
drivers=(virtio_ring virtio virtio_mmio virtio_blk failover net_failover virtio_net)
# Units that cost an emulated processor many seconds and that no test looks at: udev's walk over all devices (drivers
# come from modules-load.d), logins on consoles, sessions, housekeeping.
masked=(
  systemd-udev-trigger.service systemd-hwdb-update.service
  systemd-logind.service systemd-user-sessions.service getty.target getty@tty1.service serial-getty@ttyS0.service
  systemd-remount-fs.service systemd-sysusers.service systemd-random-seed.service
  systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-tmpfiles-clean.timer
  dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount
  sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount kmod-static-nodes.service
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer e2scrub_reap.service
)
disk_size=8G
epoch=1704067200

[ "$(id -u)" -eq 0 ] || die 'must run as root (it makes a root filesystem)'
need mmdebstrap mmdebstrap mkfs.ext4 e2fsprogs cpio cpio flock util-linux dpkg-deb dpkg depmod kmod
cache=${1:-/var/cache/computer-host/lab}
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9

digest=$(cd "$here/../.." && find test/lab/build.sh test/lab/image guest/lib/{apt,base,cpio,say}.sh -type f -print0 | LC_ALL=C sort -z |
  xargs -0 sha256sum | sha256sum | cut -c 1-16)
result=$cache/$digest
if [ -e "$result/root.img" ]; then
  echo "$result"
  exit 0
fi

work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
tree=$work/tree

step "Debian's package lists"
debian_open "$cache/.cache"

step "installing ${#packages[@]} packages and what they need"
build_base "$work/base.tar" "$epoch" "${packages[@]}"

step "unpacking the root filesystem"
mkdir -p "$tree"
tar -x --numeric-owner --xattrs --xattrs-include='*' -f "$work/base.tar" -C "$tree"

step "kernel"
image=$(debian_depends linux-image-cloud-amd64 '^linux-image-')
[ -n "$image" ] || die "Debian's archive names no kernel"
debian_unpack "$work/kernel" "$image"
release=$(basename "$(echo "$work"/kernel/lib/modules/*)")
mkdir -p "$tree/usr/lib/modules"
cp -a "$work/kernel/lib/modules/." "$tree/usr/lib/modules/"
depmod -b "$tree" "$release"

step "units and settings"
cp -a "$here/image/etc" "$here/image/usr" "$tree/"
chown -R root:root "$tree/usr/lib/lab" "$tree/etc/systemd/system" "$tree/etc/ssh"
mkdir -p "$tree/lab"
rm -f "$tree"/etc/ssh/ssh_host_* "$tree/var/cache/apt/archives/"*.deb
echo lab >"$tree/etc/hostname"
printf '127.0.0.1 localhost lab\n' >"$tree/etc/hosts"
printf 'nameserver 10.0.2.3\n' >"$tree/etc/resolv.conf"
: >"$tree/etc/machine-id"
chroot "$tree" systemctl --quiet enable lab-setup.service ssh.service
chroot "$tree" systemctl --quiet mask "${masked[@]}"

step "initrd"
initrd=$work/initrd
mkdir -p "$initrd"/{bin,dev,modules,newroot}
mknod -m 0600 "$initrd/dev/console" c 5 1
install -m 0755 "$tree/bin/busybox" "$initrd/bin/busybox"
install -m 0755 "$here/image/init" "$initrd/init"
for index in "${!drivers[@]}"; do
  driver=$(find "$tree/usr/lib/modules/$release" -name "${drivers[$index]}.ko" -print -quit)
  [ -n "$driver" ] || die "the kernel has no driver ${drivers[$index]}"
  install -m 0644 "$driver" "$initrd/modules/$index-${drivers[$index]}.ko"
done
mkdir "$work/out"
pack_cpio "$initrd" "$work/out/initrd.cpio" "$epoch"
install -m 0644 "$work/kernel/boot/vmlinuz-$release" "$work/out/vmlinuz"

step "disk"
truncate -s "$disk_size" "$work/out/root.img"
mkfs.ext4 -q -F -L lab -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -d "$tree" "$work/out/root.img"
step_end

mv "$work/out" "$result"
# Results of older recipes; a VM that runs from one keeps its open file.
find "$cache" -mindepth 1 -maxdepth 1 -type d -regex '.*/[0-9a-f]*' ! -name "$digest" -exec rm -rf {} +
echo "$result"
