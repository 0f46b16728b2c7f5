# shellcheck shell=bash disable=SC2154
# The packages of an image, installed by mmdebstrap into a tar that is kept while recipe and archive stay the same.
#
# Needs say.sh and apt.sh (opened).

# Documentation is what a guest of this kind has no reader for; dpkg leaves it out later too.
excluded_paths=('/usr/share/man/*' '/usr/share/locale/*' '/usr/share/info/*' '/usr/share/lintian/*'
  '/usr/share/doc/*')

# Usage: build_base TAR EPOCH PACKAGE…  Writes the tar, and TAR.packages with "name version" lines beside it.
build_base() {
  local tar=$1 epoch=$2 debs=$debian_cache/archives packages path options=()
  shift 2
  mkdir -p "$debs"
  # Packages that no build has used for two months have newer versions.
  find "$debs" -name '*.deb' -mtime +60 -delete
  packages=$(IFS=,; printf %s "$*")
  for path in "${excluded_paths[@]}"; do options+=("--dpkgopt=path-exclude=$path"); done
  # Nothing of a half-made root is kept: no need to wait for the disk.
  options+=('--dpkgopt=force-unsafe-io')
  options+=('--dpkgopt=path-include=/usr/share/doc/*/copyright' '--dpkgopt=path-include=/usr/share/locale/locale.alias')

  debian_transport >"$debian_cache/apt/transport.conf"
  # The hooks run in a shell of mmdebstrap's, with the new root as $1.
  export debs packages_list=$tar.packages
  # mmdebstrap mounts into its new root and ends slowly when it is asked to: in namespaces of its own, mounts and
  # processes go with it, however it ends.
  rm -rf "$debian_cache/tmp"
  mkdir "$debian_cache/tmp"
  # shellcheck disable=SC2016
  TMPDIR=$debian_cache/tmp SOURCE_DATE_EPOCH=$epoch LC_ALL=C \
    unshare --mount --propagation private --pid --fork --kill-child --mount-proc mmdebstrap --quiet --mode=root --format=tar --variant=essential --architectures=amd64 \
    --include="$packages" --aptopt="$debian_cache/apt/transport.conf" "${options[@]}" \
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --skip=download/empty --skip=essential/unlink \
    --setup-hook='mkdir -p "$1/var/cache/apt/archives"; cp "$debs"/*.deb "$1/var/cache/apt/archives/" 2>/dev/null || :' \
    --customize-hook='cp "$1"/var/cache/apt/archives/*.deb "$debs"/' \
    --customize-hook='dpkg-query --admindir="$1/var/lib/dpkg" -W -f "\${Package} \${Version}\n" >"$packages_list"' \
    bookworm "$tar.new" "$debian_cache/apt/sources.list" >"$tar.log" 2>&1 ||
    die "mmdebstrap failed: $(tail -n 5 "$tar.log")"
  rm -rf "$debian_cache/tmp"
  mv "$tar.new" "$tar"
}
