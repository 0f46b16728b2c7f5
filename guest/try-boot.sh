#!/bin/bash
# Boots an image under plain QEMU with a hand-made seed, in a network namespace without a way out, logs in over SSH
# and shows who the guest says it is. For work on the guest's side, without a daemon; leaves nothing behind.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/say.sh
. "$here/lib/say.sh"

usage() {
  cat <<'TEXT'
Usage: try-boot.sh [--dir IMAGE_DIR] [--size MIB] [--elf] [--shell] [NAME] [-- COMMAND…]

Boots the image NAME (default: debian-slim), runs COMMAND in it over SSH (default: shows its identity), and shuts it
down. Needs root and qemu-system-x86.

  --dir IMAGE_DIR  the image store (default: /var/cache/computer-host/images)
  --size MIB       make the disk this large
  --elf            boot the uncompressed kernel
  --shell          open a shell in the guest instead
TEXT
}

store=/var/cache/computer-host/images
name=debian-slim size='' kernel=vmlinuz
command=(sh -c 'uname -sr; hostname; cat /etc/machine-id; df -h / | tail -n 1; uptime')
while [ $# -gt 0 ]; do
  case $1 in
    --dir) store=${2:?--dir needs a folder} && shift ;;
    --size) size=${2:?--size needs a number of MiB} && shift ;;
    --elf) kernel=vmlinux ;;
    --shell) command=() ;;
    -h | --help) usage && exit ;;
    --) shift && command=("$@") && break ;;
    -*) die "unknown option $1; see --help" ;;
    *) name=$1 ;;
  esac
  shift
done

[ "$(id -u)" -eq 0 ] || die 'must run as root (it makes a network namespace)'
need qemu-system-x86_64 qemu-system-x86 ip iproute2 ssh openssh-client ssh-keygen openssh-client
image=$store/$name
[ -f "$image/manifest.json" ] || die "there is no image $image; build it with build-images.sh"

work=$(mktemp -d)
space=try-boot-$$
qemu=''
# shellcheck disable=SC2317 # called by the trap
cleanup() {
  if [ -n "$qemu" ]; then
    kill -KILL "$qemu" 2>/dev/null || true
    wait "$qemu" 2>/dev/null || true
  fi
  ip netns del "$space" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# The identity, as the daemon would write it; see README.md.
seed=$work/seed
mkdir -p "$seed"/etc/{ssh/sshd_config.d,computer-host} "$seed/root/.ssh"
chmod 0700 "$seed/root/.ssh"
ssh-keygen -q -t ed25519 -N '' -C '' -f "$seed/etc/ssh/ssh_host_ed25519_key"
ssh-keygen -q -t ed25519 -N '' -C '' -f "$work/key"
echo "try-$name" >"$seed/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 try-%s\n' "$name" >"$seed/etc/hosts"
tr -d - </proc/sys/kernel/random/uuid >"$seed/etc/machine-id"
install -m 0600 "$work/key.pub" "$seed/root/.ssh/authorized_keys"
find "$seed" -mindepth 1 -printf '%P\n' | grep -E '^(etc/(hostname|hosts|machine-id|ssh/ssh_host.*)|root/\.ssh.*)$' |
  LC_ALL=C sort | tar -c --format=ustar --owner=0 --group=0 --no-recursion -C "$seed" -T - >"$work/seed.tar"
truncate -s 1M "$work/seed.tar"
digest=$(sha256sum "$work/seed.tar")

cp --reflink=auto --sparse=always "$image/rootfs.ext4" "$work/disk"
[ -z "$size" ] || truncate -s "${size}M" "$work/disk"
cat "$store/initrd.cpio" "$image/modules.cpio" >"$work/initrd"

ip netns add "$space"
ip -n "$space" tuntap add tap0 mode tap
ip -n "$space" addr add 172.16.0.1/30 dev tap0
ip -n "$space" link set tap0 up

# A busy host keeps a guest under TCG from calibrating its clock: it is told what the clock is.
khz=$(dmesg 2>/dev/null | sed -n 's/.*tsc: Detected \([0-9]*\)\.\([0-9]\{3\}\) MHz.*/\1\2/p' | head -n 1)
khz=${khz:-$(awk -F ': ' '/^cpu MHz/ { printf "%d", $2 * 1000; exit }' /proc/cpuinfo)}
arguments="console=ttyS0 quiet reboot=t panic=-1 random.trust_cpu=on mitigations=off tsc=reliable \
tsc_early_khz=$khz lpj=4000000 no_timer_check cryptomgr.notests root=/dev/vda rw \
computer_host.seed=vdb computer_host.seed_digest=${digest%% *}"

started=$(date +%s%N)
ip netns exec "$space" qemu-system-x86_64 -M microvm,acpi=on,rtc=on -accel tcg,thread=multi -cpu max -m 256 -smp 1 \
  -nodefaults -no-user-config -no-reboot -display none -serial "file:$work/console" \
  -kernel "$image/$kernel" -initrd "$work/initrd" -append "$arguments" \
  -drive "id=d,file=$work/disk,format=raw,if=none" -device virtio-blk-device,drive=d \
  -drive "id=s,file=$work/seed.tar,format=raw,if=none,readonly=on" -device virtio-blk-device,drive=s \
  -netdev tap,id=n,ifname=tap0,script=no,downscript=no -device virtio-net-device,netdev=n -device virtio-rng-device &
qemu=$!

elapsed() {
  local ms=$((($(date +%s%N) - started) / 1000000))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# Whether the guest's sshd says hello.
banner() {
  # shellcheck disable=SC2016
  timeout 2 ip netns exec "$space" bash -c 'exec 3<>/dev/tcp/172.16.0.2/22 && head -c 4 <&3' 2>/dev/null |
    grep -q SSH-
}
until banner; do
  kill -0 "$qemu" 2>/dev/null || die "the guest ended: $(tail -n 5 "$work/console" | tr -d '\r')"
  [ $(($(date +%s%N) - started)) -lt 90000000000 ] ||
    die "no SSH within 90 s; the console ends: $(tail -n 5 "$work/console" | tr -d '\r')"
  sleep 0.1
done
echo "SSH answers after $(elapsed)" >&2
grep -a 'computer-host:' "$work/console" >&2 || true

printf '172.16.0.2 %s' "$(cat "$seed/etc/ssh/ssh_host_ed25519_key.pub")" >"$work/known_hosts"
guest_ssh() {
  ip netns exec "$space" ssh -i "$work/key" -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=20 \
    -o UserKnownHostsFile="$work/known_hosts" -o StrictHostKeyChecking=yes root@172.16.0.2 "$@"
}
status=0
guest_ssh ${command[@]+"${command[@]@Q}"} || status=$?
echo "command ended with $status after $(elapsed)" >&2

guest_ssh reboot >/dev/null 2>&1 || true
asked=$(date +%s%N)
while kill -0 "$qemu" 2>/dev/null; do
  [ $(($(date +%s%N) - asked)) -lt 20000000000 ] || die 'the guest did not shut down within 20 s'
  sleep 0.1
done
wait "$qemu" || true
qemu=''
echo "shut down after $(elapsed)" >&2
exit "$status"
