# shellcheck shell=bash
# Descriptions of built files, as JSON. All values are names, versions and digests of ours: nothing needs escaping
# beyond what json_string refuses.

# Usage: json_string VALUE  Prints it quoted; refuses what would need escaping.
json_string() {
  [[ $1 != *[\"\\]* && $1 != *[[:cntrl:]]* ]] || die "cannot write $1 into a manifest"
  printf '"%s"' "$1"
}

# Usage: json_file PATH [KEY VALUE]…  Prints {"file", "sha256", "size_bytes", …} of a file.
json_file() {
  local path=$1 digest
  shift
  digest=$(sha256sum "$path")
  printf '{"file": %s, "sha256": "%s", "size_bytes": %d' "$(json_string "${path##*/}")" "${digest%% *}" \
    "$(stat -c %s "$path")"
  while [ $# -gt 1 ]; do
    printf ', %s: %s' "$(json_string "$1")" "$(json_string "$2")"
    shift 2
  done
  printf '}'
}

# Usage: json_versions FILE PACKAGE…  Prints {"package": "version", …} of those in a "name version" list.
json_versions() {
  local file=$1 package version separator=''
  shift
  printf '{'
  for package in "$@"; do
    version=$(awk -v name="$package" '$1 == name { print $2; exit }' "$file")
    [ -n "$version" ] || continue
    printf '%s%s: %s' "$separator" "$(json_string "$package")" "$(json_string "$version")"
    separator=', '
  done
  printf '}'
}

# Usage: write_manifest FOLDER NAME RECIPE_SHA256 PACKAGES_LIST PACKAGE…
write_manifest() {
  local folder=$1 name=$2 recipe=$3 list=$4 release
  shift 4
  release=$(cat "$folder/kernel-version")
  rm "$folder/kernel-version"
  cat >"$folder/manifest.json" <<JSON
{
  "format": 1,
  "name": $(json_string "$name"),
  "architecture": "x86_64",
  "default_user": "root",
  "kernel": $(json_file "$folder/vmlinuz" version "$release"),
  "kernel_elf": $(json_file "$folder/vmlinux" version "$release"),
  "modules": $(json_file "$folder/modules.cpio"),
  "rootfs": $(json_file "$folder/rootfs.ext4" filesystem ext4),
  "built_at": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "built_with": {
    "recipe_sha256": "$recipe",
    "mmdebstrap": $(json_string "$(mmdebstrap --version | awk '{ print $2 }')"),
    "packages": $(json_versions "$list" "$@")
  }
}
JSON
}
