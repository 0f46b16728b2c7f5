#!/bin/bash
# Makes an image's root filesystem out of Debian's packages (a tar of mmdebstrap) and a recipe. The same inputs give
# the same bytes. Works in a tmpfs of its own mount namespace, so that nothing is left behind, however it ends.
#
# Usage: unshare --mount rootfs.sh BASE_TAR IMAGES_FOLDER NAME OUT EPOCH
set -euo pipefail

# shellcheck source=say.sh
. "$(dirname "${BASH_SOURCE[0]}")/say.sh"

base_tar=$1 images=$2 name=$3 out=$4 epoch=$5
export LC_ALL=C

# shellcheck source=../images/debian-slim/recipe.sh
. "$images/$name/recipe.sh"
# shellcheck source=../images/common/prepare.sh
. "$images/common/prepare.sh"

work=$(mktemp -d)
trap 'umount "$work"; rmdir "$work"' EXIT
mount -t tmpfs -o mode=0700,size=4g tmpfs "$work"

tree=$work/tree
mkdir -m 0755 "$tree"
tar -x --numeric-owner --xattrs --xattrs-include='*' -f "$base_tar" -C "$tree"
for files in "$images/common/files" "$images/$name/files"; do
  # Files of a checkout have whatever owner and umask the user has.
  tar -c --owner=0 --group=0 --mode='u=rwX,go=rX' -C "$files" . | tar -x --no-overwrite-dir -C "$tree"
done
prepare_common "$tree"
prepare_image "$tree"
find "$tree" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +

# mke2fs takes the files of a folder in the order of readdir. A tmpfs lists them by age, so a second copy, written in
# sorted order, makes that order a matter of the names alone.
sorted=$work/sorted
mkdir -m 0755 "$sorted"
tar -c --sort=name --numeric-owner --xattrs --xattrs-include='*' -C "$tree" . |
  tar -x --numeric-owner --xattrs --xattrs-include='*' -C "$sorted"
rm -rf "$tree"

# The inode tables are declared zero (a new sparse file is), so that no guest spends its first minute on zeroing them.
truncate -s "${size_mib}M" "$work/rootfs.ext4"
export SOURCE_DATE_EPOCH=$epoch E2FSPROGS_FAKE_TIME=$epoch
mkfs.ext4 -q -F -d "$sorted" -U "$filesystem_uuid" -L root -m 1 \
  -E "hash_seed=$hash_seed,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1" \
  "$work/rootfs.ext4" || die "cannot make the filesystem"

# mke2fs copies access and change times of the folder, which are now's.
used_inodes() {
  dumpe2fs "$work/rootfs.ext4" 2>/dev/null | awk -v root=2 '
    /^Inode count:/ { count = $3 }
    /^ *Free inodes: / {
      sub(/^ *Free inodes: */, "")
      ranges = split($0, range, ", *")
      for (i = 1; i <= ranges; i++) {
        if (range[i] == "") continue
        bounds = split(range[i], bound, "-")
        for (n = bound[1]; n <= (bounds > 1 ? bound[2] : bound[1]); n++) free[n] = 1
      }
    }
    END { for (n = root; n <= count; n++) if (!(n in free) && (n == root || n > 10)) print n }'
}
used_inodes | while read -r inode; do
  for field in atime ctime; do echo "set_inode_field <$inode> $field @$epoch"; done
done >"$work/times"
debugfs -w -f "$work/times" "$work/rootfs.ext4" >/dev/null 2>&1 || die "cannot set the times of the filesystem"
e2fsck -fn "$work/rootfs.ext4" >"$work/check" 2>&1 || die "the filesystem is not sound: $(tail -n 3 "$work/check")"

cp --sparse=always "$work/rootfs.ext4" "$out"
