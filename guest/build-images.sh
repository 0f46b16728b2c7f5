#!/bin/bash
# Builds the images of guests into the image store: what is missing, or whose recipe has changed.
set -euo pipefail

guest=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/say.sh
. "$guest/lib/say.sh"
# shellcheck source=lib/apt.sh
. "$guest/lib/apt.sh"
# shellcheck source=lib/cpio.sh
. "$guest/lib/cpio.sh"
# shellcheck source=lib/kernel.sh
. "$guest/lib/kernel.sh"
# shellcheck source=lib/base.sh
. "$guest/lib/base.sh"
# shellcheck source=lib/manifest.sh
. "$guest/lib/manifest.sh"

usage() {
  cat <<'TEXT'
Usage: build-images.sh [--dir IMAGE_DIR] [--force] [NAME…]

Builds the initrd and the named images (default: all that guest/images has) into IMAGE_DIR (default:
/var/cache/computer-host/images). What is there and was built from the same recipe is left alone.

  --dir IMAGE_DIR  the image store
  --force          build anew, with the newest packages
  --list           print the names of the images and end
TEXT
}

# Times of files in images: a constant, so that the same inputs give the same digests.
epoch=1704067200
store=/var/cache/computer-host/images
force=no
names=()

image_names() {
  find "$guest/images" -mindepth 2 -maxdepth 2 -name recipe.sh -printf '%h\n' | xargs -n 1 basename | sort -r
}

while [ $# -gt 0 ]; do
  case $1 in
    --dir)
      [ $# -gt 1 ] || die '--dir needs a folder'
      store=$2
      shift
      ;;
    --force) force=yes ;;
    --list)
      image_names
      exit
      ;;
    -h | --help)
      usage
      exit
      ;;
    -*) die "unknown option $1; see --help" ;;
    *)
      [ -f "$guest/images/$1/recipe.sh" ] || die "there is no image $1; there are: $(image_names | xargs)"
      names+=("$1")
      ;;
  esac
  shift
done
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(image_names)

# Usage: digest_of PATH…  Prints one SHA-256 over names, modes and contents of files below guest/.
digest_of() {
  (cd "$guest" && find "$@" -type f -printf '%p\n' | LC_ALL=C sort | while read -r file; do
    [ -x "$file" ] && echo x || echo -
    sha256sum "$file"
  done | sha256sum | cut -d ' ' -f 1)
}

# Usage: is_current FILE KEY DIGEST  Whether a description names this recipe.
is_current() {
  [ "$force" = no ] && [ -f "$1" ] && grep -q "\"$2\": \"$3\"" "$1"
}

# The programs that a build needs, with their packages. Asked only when there is something to build.
check_host() {
  [ "$(id -u)" -eq 0 ] || die 'building images needs root; run it with sudo'
  [ "$(uname -m)" = x86_64 ] || die 'images are built on x86-64 only'
  need apt-get apt dpkg-deb dpkg mmdebstrap mmdebstrap mkfs.ext4 e2fsprogs cpio cpio depmod kmod lz4 lz4 zstd zstd \
    xz xz-utils unshare util-linux
  [ -f "$debian_keyring" ] || die 'the keys of Debian are missing; install them with: apt-get install debian-archive-keyring'
  mkdir -p "$store/.cache"
  store=$(cd "$store" && pwd)
  cache=$store/.cache
  # One build at a time in a store.
  exec 9>"$cache/lock"
  flock -n 9 || { echo "  waiting for another build in $store" >&2 && flock 9; }
  find "$store" -maxdepth 1 -name '.*.building.*' -exec rm -rf {} +
  check_host() { :; }
}

open_archive() {
  [ -n "$debian_cache" ] || step "reading Debian's package lists"
  debian_open "$cache"
}

build_initrd() {
  local recipe
  recipe=$(digest_of initrd lib/apt.sh lib/cpio.sh)
  if [ -f "$store/initrd.cpio" ] && is_current "$store/initrd.json" recipe_sha256 "$recipe"; then return 0; fi
  check_host
  echo "initrd" >&2
  step 'packing busybox, resize2fs and init'
  SOURCE_DATE_EPOCH=$epoch "$guest/initrd/build.sh" "$cache/initrd.cpio" "$cache"
  # The description goes first and comes last: it never speaks of another archive than the one that is there.
  rm -f "$store/initrd.json"
  mv "$cache/initrd.cpio" "$store/initrd.cpio"
  printf '{"format": 1, "initrd": %s, "built_with": {"recipe_sha256": "%s"}}\n' \
    "$(json_file "$store/initrd.cpio")" "$recipe" >"$cache/initrd.json"
  mv "$cache/initrd.json" "$store/initrd.json"
  step_end
}

# Makes the kernel's folder in the cache, unless that version is there, and sets kernel_folder.
find_kernel() {
  local package key
  open_archive
  package=$(debian_depends linux-image-cloud-amd64 '^linux-image-[0-9]')
  key=$(digest_of lib/kernel.sh lib/cpio.sh)
  kernel_folder=$cache/$package-$(debian_version "$package")-${key:0:12}
  if [ -f "$kernel_folder/version" ]; then return 0; fi
  step "unpacking the kernel of $package"
  rm -rf "$cache"/linux-image-* "$cache/kernel.building"
  build_kernel "$cache/kernel.building" "$epoch"
  mv "$cache/kernel.building" "$kernel_folder"
}

# Usage: find_base NAME  Installs the image's packages in the cache, unless they are there, and sets base_tar. The
# archive's release files are a part of the key: new packages make a new base.
find_base() {
  local name=$1 key
  open_archive
  key=$({ digest_of lib/base.sh && printf '%s\n' "$epoch" "${packages[@]}" && list_digests; } | sha256sum)
  base_tar=$cache/base-$name.${key:0:16}.tar
  if [ "$force" = no ] && [ -f "$base_tar" ] && [ -f "$base_tar.packages" ]; then return 0; fi
  rm -f "$cache/base-$name".*
  step "installing ${#packages[@]} packages and what they need"
  build_base "$base_tar" "$epoch" "${packages[@]}"
}

# Prints the digests of the package lists that apt has now.
list_digests() {
  find "$cache/apt/lists" -maxdepth 1 -name '*_Packages*' -type f -exec sha256sum {} + | LC_ALL=C sort
}

build_image() {
  local name=$1 recipe folder
  recipe=$(digest_of "images/$name" images/common lib)
  if is_current "$store/$name/manifest.json" recipe_sha256 "$recipe"; then return 0; fi
  check_host
  echo "$name" >&2
  # shellcheck source=images/debian-slim/recipe.sh
  . "$guest/images/$name/recipe.sh"
  find_kernel
  find_base "$name"
  folder=$(mktemp -d "$store/.$name.building.XXXXXX")
  # shellcheck disable=SC2064 # this folder, now
  trap "rm -rf '$folder'" EXIT
  step 'making the root filesystem'
  unshare --mount --propagation private "$guest/lib/rootfs.sh" "$base_tar" "$guest/images" "$name" \
    "$folder/rootfs.ext4" "$epoch"
  step 'putting the image in place'
  cp --reflink=auto "$kernel_folder"/{vmlinuz,vmlinux,modules.cpio} "$folder/"
  cp "$kernel_folder/version" "$folder/kernel-version"
  write_manifest "$folder" "$name" "$recipe" "$base_tar.packages" "${packages[@]}" libc6 bash
  chmod 0644 "$folder"/*
  chmod 0755 "$folder"
  replace_folder "$folder" "$store/$name"
  step_end
}

# Usage: replace_folder NEW PLACE  The exchange is one system call where mv knows how (coreutils 9.5), else the place
# is empty for an instant.
replace_folder() {
  local new=$1 place=$2 old=$1.old
  sync "$new"/* "$new"
  if [ ! -e "$place" ]; then
    mv -T "$new" "$place"
  elif mv -T --exchange "$new" "$place" 2>/dev/null; then
    rm -rf "$new"
  else
    mv -T "$place" "$old"
    mv -T "$new" "$place"
    rm -rf "$old"
  fi
}

started=$SECONDS
build_initrd
for name in "${names[@]}"; do build_image "$name"; done
if [ "$SECONDS" -gt "$started" ]; then
  echo "images are in $store ($((SECONDS - started)) s)" >&2
else
  echo "images in $store are up to date: ${names[*]}" >&2
fi
