# shellcheck shell=bash
# Archives for an initramfs: uncompressed newc, the same bytes for the same files. The kernel takes several of them
# one after the other, each padded to 512 bytes.

# Usage: pack_cpio FOLDER FILE EPOCH  Packs a folder's contents, owned by root, with times of EPOCH.
pack_cpio() {
  local folder=$1 file=$2 epoch=$3
  find "$folder" -exec touch -h -d "@$epoch" {} +
  (cd "$folder" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort |
    cpio --quiet -o -H newc -R 0:0 --reproducible) >"$file"
  [ $(($(stat -c %s "$file") % 512)) -eq 0 ] || die "$file is not padded to 512 bytes"
}
