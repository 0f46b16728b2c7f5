#!/bin/bash
# Builds the initrd of every guest: static busybox, resize2fs with its libraries, our init. It holds no kernel
# module; those of an image's kernel come in a second archive behind this one.
#
# Usage: build.sh OUT [CACHE]   OUT: the archive to write (uncompressed newc cpio)
#                               CACHE: folder for what is downloaded (default: a temporary one)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../lib/say.sh
. "$here/../lib/say.sh"
# shellcheck source=../lib/apt.sh
. "$here/../lib/apt.sh"
# shellcheck source=../lib/cpio.sh
. "$here/../lib/cpio.sh"

[ $# -ge 1 ] || die 'usage: build.sh OUT [CACHE]'
[ "$(id -u)" -eq 0 ] || die 'must run as root (the archive holds a device node)'
need cpio cpio dpkg-deb dpkg
out=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
epoch=${SOURCE_DATE_EPOCH:-1704067200}

debian_open "${2:-$work/cache}"
debian_unpack "$work/debs" busybox-static e2fsprogs libext2fs2 libcom-err2 libblkid1 libuuid1 libc6

tree=$work/tree
mkdir -p "$tree"/{bin,dev,lib/computer-host,lib64,newroot,proc,sbin,sys}
# The console that the kernel opens for its first process, before devtmpfs is there.
mknod -m 0600 "$tree/dev/console" c 5 1
install -m 0755 "$work/debs/bin/busybox" "$tree/bin/busybox"
install -m 0755 "$work/debs/sbin/resize2fs" "$tree/sbin/resize2fs"
install -m 0755 "$here/init" "$tree/init"
install -m 0644 "$here/apply-seed" "$tree/lib/computer-host/apply-seed"

# Usage: add_libraries ELF  Copies the libraries that a program names, and theirs, from the unpacked packages.
add_libraries() {
  local name source
  for name in $(objdump_needed "$1"); do
    [ ! -e "$tree/lib/$name" ] || continue
    source=$(find "$work/debs" -name "$name" -print -quit)
    [ -n "$source" ] || die "no package of the initrd holds the library $name"
    install -m 0644 "$(readlink -f "$source")" "$tree/lib/$name"
    add_libraries "$tree/lib/$name"
  done
}

# Prints the names of the libraries that an ELF file needs. The loader lists them without running the program.
objdump_needed() {
  LD_LIBRARY_PATH='' "$loader" --library-path "$library_path" --list "$1" 2>/dev/null |
    sed -n 's/^[[:space:]]*\(lib[^ ]*\.so[^ ]*\) .*/\1/p'
}

loader=$(find "$work/debs" -name 'ld-linux-x86-64.so.2' -print -quit)
library_path=$(find "$work/debs" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
add_libraries "$tree/sbin/resize2fs"
install -m 0755 "$(readlink -f "$loader")" "$tree/lib64/ld-linux-x86-64.so.2"

pack_cpio "$tree" "$work/initrd.cpio" "$epoch"
# Into place in one step, so that a reader sees the old archive or the new one.
mkdir -p "$(dirname "$out")"
temporary=$(mktemp "$out.XXXXXX")
cp "$work/initrd.cpio" "$temporary"
chmod 0644 "$temporary"
mv "$temporary" "$out"
