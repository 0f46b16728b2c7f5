# shellcheck shell=bash
# debian-slim: essential Debian, OpenSSH, iproute2, busybox as init. The default image: seconds to boot.

# shellcheck disable=SC2034 # read by the build
{
  description='essential Debian 12 with OpenSSH, busybox as init'
  packages=(openssh-server iproute2 busybox apt curl ca-certificates)
  size_mib=512
  filesystem_uuid=8d6b1f0e-5c53-4c5f-9a0b-0d0c6b3f5a01
  hash_seed=2f7b4d0a-91f0-4a57-8f0c-6a8f1f0e7c01
}

# What busybox does here until the real package is installed: dpkg replaces a link that no package owns.
busybox_links=(free insmod less lsmod lsof modprobe more mount nc ping ps rmmod sysctl top traceroute umount unzip
  vi wget xxd)

# Usage: prepare_image TREE
prepare_image() {
  local tree=$1 name
  for name in init reboot poweroff halt; do ln -sf ../bin/busybox "$tree/sbin/$name"; done
  # What programs expect in /dev, copied there at boot in one go.
  mkdir -p "$tree"/usr/lib/computer-host/dev/{pts,shm}
  ln -s /proc/self/fd "$tree/usr/lib/computer-host/dev/fd"
  ln -s /proc/self/fd/0 "$tree/usr/lib/computer-host/dev/stdin"
  ln -s /proc/self/fd/1 "$tree/usr/lib/computer-host/dev/stdout"
  ln -s /proc/self/fd/2 "$tree/usr/lib/computer-host/dev/stderr"
  for name in "${busybox_links[@]}"; do
    [ -n "$(find "$tree"/usr/{bin,sbin} -maxdepth 1 -name "$name" -print -quit)" ] ||
      ln -s busybox "$tree/usr/bin/$name"
  done
}
