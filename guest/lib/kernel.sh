# shellcheck shell=bash
# Debian's cloud kernel, taken out of its package: the bzImage, the ELF inside it, and the modules that a guest of
# ours needs before it has a root filesystem.
#
# Needs say.sh, apt.sh (opened) and cpio.sh.

# What reaches devices (MMIO and PCI), then disk, network, random numbers; the rest is useful to a guest and small.
kernel_modules=(virtio_mmio virtio_pci virtio_blk virtio_net virtio-rng virtio_balloon
  vmw_vsock_virtio_transport)
# By tcp_diag a woken guest resets the connections of its past (ss -K), idle ones too.
kernel_modules+=(tcp_diag)
# Taken where a kernel has them: Debian 12's cloud kernel is built without vmgenid.
optional_modules=(vmgenid)

# Usage: build_kernel FOLDER EPOCH
# Leaves vmlinuz, vmlinux, modules.cpio and version (of the package) in FOLDER, made anew.
build_kernel() {
  local folder=$1 epoch=$2 package work release
  package=$(debian_depends linux-image-cloud-amd64 '^linux-image-[0-9]')
  [ -n "$package" ] || die "linux-image-cloud-amd64 names no kernel package"
  work=$folder/unpacked
  mkdir -p "$work"
  debian_unpack "$work" "$package"
  release=${package#linux-image-}
  cp "$work/boot/vmlinuz-$release" "$folder/vmlinuz"
  extract_vmlinux "$folder/vmlinuz" "$folder/vmlinux"
  pack_modules "$work" "$release" "$folder/modules.cpio" "$epoch"
  printf '%s\n' "$release" >"$folder/version"
  rm -rf "$work"
}

# Usage: number_at FILE OFFSET BYTES  Prints an unsigned little-endian number.
number_at() {
  od -A n -t "u$3" --endian=little -j "$2" -N "$3" "$1" | tr -d ' '
}

# Usage: extract_vmlinux BZIMAGE OUT
# The boot protocol (Documentation/x86/boot.rst, 2.08 and later) says where the compressed ELF lies. Apart from gzip,
# whose format has it already, the payload ends in 4 bytes with the size of what was packed.
extract_vmlinux() {
  local image=$1 out=$2 sectors start length size
  [ "$(tail -c +515 "$image" | head -c 4)" = HdrS ] || die "$image is not a bzImage"
  [ "$(number_at "$image" 518 2)" -ge 520 ] || die "$image has a boot protocol older than 2.08"
  sectors=$(number_at "$image" 497 1)
  [ "$sectors" -ne 0 ] || sectors=4
  start=$(((sectors + 1) * 512 + $(number_at "$image" 584 4)))
  length=$(number_at "$image" 588 4)
  size=$(number_at "$image" $((start + length - 4)) 4)

  local magic unpack=()
  magic=$(od -A n -t x1 -j "$start" -N 4 "$image" | tr -d ' ')
  case $magic in
    1f8b*) unpack=(gzip -dc) ;;
    fd377a58) unpack=(xz -dc) length=$((length - 4)) ;;
    28b52ffd) unpack=(zstd -dcq) length=$((length - 4)) ;;
    02214c18) unpack=(lz4 -dcq) length=$((length - 4)) ;;
    *) die "$image is packed in an unknown way (it begins with $magic)" ;;
  esac
  # head leaves when it has its bytes, and tail's broken pipe is no error.
  { tail -c "+$((start + 1))" "$image" || true; } 2>/dev/null | head -c "$length" | "${unpack[@]}" >"$out" ||
    die "cannot unpack the kernel in $image"
  [ "$(od -A n -t x1 -N 4 "$out" | tr -d ' ')" = 7f454c46 ] || die "the kernel in $image is not an ELF file"
  [ "$(stat -c %s "$out")" -eq "$size" ] || die "the kernel in $image is not complete"
}

# Usage: pack_modules TREE RELEASE OUT EPOCH
# Writes the needed modules as /modules/NN-name.ko, decompressed, numbered in the order in which they load.
pack_modules() {
  local tree=$1 release=$2 out=$3 epoch=$4
  local base=$tree/lib/modules/$release order=() name file number=0 target
  depmod -b "$tree" "$release"
  for name in "${kernel_modules[@]}" "${optional_modules[@]}"; do
    # The path of a module has - and _ as its author liked; modules.builtin lists what the kernel has anyway.
    file=$(grep -E "/${name//[-_]/[-_]}\.ko[^:]*:" "$base/modules.dep" || true)
    if [ -z "$file" ]; then
      grep -qE "/${name//[-_]/[-_]}\.ko" "$base/modules.builtin" ||
        [[ " ${optional_modules[*]} " == *" $name "* ]] || die "kernel $release has no module $name"
      continue
    fi
    # A line of modules.dep is "module: what it needs", the deepest need last.
    for file in $(tr ' ' '\n' <<<"${file#*:}" | tac) "${file%%:*}"; do
      [[ " ${order[*]-} " == *" $file "* ]] || order+=("$file")
    done
  done

  target=$(mktemp -d)
  mkdir "$target/modules"
  for file in "${order[@]}"; do
    name=${file##*/}
    name=$(printf '%s/modules/%02d-%s.ko' "$target" "$number" "${name%%.*}")
    case $file in
      *.xz) xz -dc "$base/$file" >"$name" ;;
      *.zst) zstd -dcq "$base/$file" >"$name" ;;
      *.gz) gzip -dc "$base/$file" >"$name" ;;
      *) cp "$base/$file" "$name" ;;
    esac
    chmod 0644 "$name"
    number=$((number + 1))
  done
  pack_cpio "$target" "$out" "$epoch"
  rm -rf "$target"
}
