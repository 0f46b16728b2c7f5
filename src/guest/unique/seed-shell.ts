import { shell } from "./shell.ts";

/**
 * Shell function `apply_seed TAR`: unpacks the seed as guest/initrd/apply-seed does it at a boot, with two differences
 * for a guest that is in use. What the seed brings is replaced file by file, not removed first; and files are as young
 * as they are, because programs read one such as resolv.conf again only when its time has changed.
 * Takes `bytes` and `digest` of the seed. Fails with a line that says why.
 */
export const SEED_SHELL = shell`
# A user's chattr +i on resolv.conf or hosts is common; whoever set it has chattr on this disk.
loosen() { chattr -i "$@" 2>/dev/null || :; }

# Removes what would stop tar at a path of the seed: a file where a folder belongs, and the other way round.
make_way() {
  case $1 in
    */) if [ -L "\${1%/}" ] && [ ! -d "$1" ] || { [ -e "\${1%/}" ] && [ ! -d "\${1%/}" ]; }; then rm -f "\${1%/}"; fi ;;
    *)
      if [ -d "$1" ] && [ ! -L "$1" ]; then rm -rf "$1"; fi
      [ ! -f "$1" ] || loosen "$1"
      ;;
  esac
}

# Whether the seed brings a file of this path.
in_seed() {
  for path in $paths; do [ "/$path" != "$1" ] || return 0; done
  return 1
}

apply_seed() {
  payload=$1
  umask 022
  [ "$(wc -c <"$payload")" -eq "$bytes" ] || stop 'the seed did not arrive whole'
  paths=$(tar -tf "$payload" 2>&1) || stop "tar: $paths"
  for path in $paths; do make_way "/$path"; done
  for former in /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id /var/lib/systemd/random-seed; do
    [ -e "$former" ] || [ -L "$former" ] || continue
    ! in_seed "$former" || continue
    loosen "$former"
    rm -rf "$former" || stop "cannot remove $former"
  done
  umask 0
  # GNU tar would replace a link to a folder by a folder; that of busybox does not, and does not know the word.
  tar -x -p -m --keep-directory-symlink -f "$payload" -C / 2>/dev/null ||
    reason=$(tar -x -p -m -f "$payload" -C / 2>&1) || stop "tar: $reason"
  umask 022
  # The marker comes last and only when the rest is on the disk: after a power loss in between, the next boot applies
  # the seed again.
  sync
  folder=\${marker%/*}
  if [ -L "$folder" ] || { [ -e "$folder" ] && [ ! -d "$folder" ]; }; then rm -f "$folder"; fi
  mkdir -p "$folder" || stop "cannot make $folder"
  if [ -d "$marker" ]; then rm -rf "$marker"; fi
  { rm -f "$marker.new" && echo "$digest" >"$marker.new" && mv "$marker.new" "$marker"; } ||
    stop "cannot write $marker"
}
`;
