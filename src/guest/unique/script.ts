import { CONNECTIONS_SHELL } from "./connections-shell.ts";
import { IDENTITY_SHELL } from "./identity-shell.ts";
import { RANDOMNESS_SHELL } from "./randomness-shell.ts";
import { SEED_SHELL } from "./seed-shell.ts";
import { shell } from "./shell.ts";

/**
 * What a woken guest runs to become another machine: POSIX sh, with coreutils or busybox. A constant: what differs
 * between guests, secrets among it, comes on standard input, which no process list shows.
 *
 * It says `computer-host: clock?` and reads one line, `MILLISECONDS DIGEST HOSTNAME MACHINE_ID RANDOM_HEX BYTES`,
 * and then the seed's tar of that many bytes; not from the seed's device, whose old blocks the kernel may have cached.
 * Of each item it tells one line, `computer-host: ITEM done|failed: WORDS`, and at last `computer-host: end`.
 */
export const UNIQUE_SCRIPT = shell`
export LC_ALL=C PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"
umask 077
marker=/var/lib/computer-host/seed

for tool in cat cut date grep head mkdir mktemp mv rm sync tar wc; do
  command -v "$tool" >/dev/null 2>&1 || eval "$tool() { busybox $tool \"\$@\"; }"
done

# Usage: tell ITEM done|failed WORDS
tell() { printf 'computer-host: %s %s: %s\n' "$1" "$2" "$3"; }

# Usage: tell_failed ITEM WORDS, of which the first line is told.
tell_failed() { tell "$1" failed "$(printf '%s\n' "$2" | head -n 1 | cut -c 1-200)"; }

stop() {
  printf '%s\n' "$*"
  exit 1
}

now_ms() {
  ms=$(date +%s%3N)
  case $ms in *[!0-9]*) ms=$(date +%s)000 ;; esac
  printf %s "$ms"
}

set_clock() {
  seconds=\${1%???}
  if reason=$(date -u -s "@$seconds.\${1#"$seconds"}" 2>&1) || reason=$(date -u -s "@$seconds" 2>&1); then
    tell clock done "$before $(now_ms)"
  else
    tell_failed clock "$reason"
  fi
}
${SEED_SHELL}${IDENTITY_SHELL}${RANDOMNESS_SHELL}${CONNECTIONS_SHELL}
before=$(now_ms)
echo 'computer-host: clock?'
read -r now digest hostname machine_id random bytes || stop 'computer-host: nothing was said'
set_clock "$now"
renew_randomness
if work=$(mktemp -d /run/computer-host.XXXXXX 2>/dev/null || mktemp -d); then
  trap 'rm -rf "$work"' EXIT
  cat >"$work/seed.tar"
  give_identity
else
  for item in hostname machine_id ssh_host_key authorized_keys resolvers; do tell "$item" failed 'no room for the seed'; done
fi
reset_connections
echo 'computer-host: end'
`;
