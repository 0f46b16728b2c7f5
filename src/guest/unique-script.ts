/**
 * What a woken guest runs to become another machine: POSIX sh, with coreutils or busybox. A constant: what differs
 * between guests, secrets among it, comes on standard input, which no process list shows.
 *
 * It says `computer-host: clock?` and reads one line, `MILLISECONDS DIGEST HOSTNAME MACHINE_ID RANDOM_HEX BYTES`,
 * and then the seed's tar of that many bytes; not from the seed's device, whose old blocks the kernel may have cached. Of each item it
 * tells one line, `computer-host: ITEM done|failed: WORDS`, and at last `computer-host: end`.
 *
 * The files are unpacked as guest/initrd/apply-seed does it at a boot, with two differences for a guest that is in
 * use: what the seed brings anew is replaced and at no time missing, and files are as young as they are, because
 * programs read a file such as resolv.conf again only when its time has changed.
 */
export const UNIQUE_SCRIPT = String.raw`
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

# Runs in a shell of its own, whose output is the reason of a failure.
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

give_identity() {
  if ! reason=$(apply_seed "$work/seed.tar" 2>&1); then
    for item in hostname machine_id ssh_host_key authorized_keys resolvers; do tell_failed "$item" "$reason"; done
    return
  fi
  if reason=$({ printf '%s\n' "$hostname" >/proc/sys/kernel/hostname; } 2>&1); then
    tell hostname done 'set in the kernel, /etc/hostname and /etc/hosts'
  else
    tell_failed hostname "$reason"
  fi
  if [ "$(cat /etc/machine-id)" = "$machine_id" ]; then
    tell machine_id done 'written to /etc/machine-id'
    # It keeps its records in a folder of that name, and its readers look into no other.
    if [ -d /run/systemd/system ]; then systemctl --no-block try-restart systemd-journald.service 2>/dev/null; fi
  else
    tell machine_id failed '/etc/machine-id holds another one'
  fi
  renew_sshd
  tell authorized_keys done 'replaced by those of the new identity'
  tell resolvers done 'written to /etc/resolv.conf'
  # The kernel may remember blocks of the seed that this drive held before.
  read -r cmdline </proc/cmdline
  for word in $cmdline; do
    case $word in computer_host.seed=*) blockdev --flushbufs "/dev/\${word#*=}" 2>/dev/null ;; esac
  done
}

# The listener is the sshd that the sshd of this session descends from. It takes SIGHUP as a request to begin anew
# with the files that are there now; sessions go on.
renew_sshd() {
  session='' listener='' pid=$$
  while [ "$pid" -gt 1 ]; do
    read -r name <"/proc/$pid/comm" || break
    case $name in
      sshd-session) session=$pid ;;
      sshd) if [ -z "$session" ]; then session=$pid; else listener=$pid; fi ;;
    esac
    parent=''
    while read -r key value; do
      if [ "$key" = PPid: ]; then parent=$value; fi
    done <"/proc/$pid/status"
    pid=\${parent:-0}
  done
  if [ -n "$listener" ] && kill -HUP "$listener"; then
    tell ssh_host_key done 'written; sshd begins anew with it'
  elif [ -n "$session" ]; then
    tell ssh_host_key done 'written; sshd reads it for each connection'
  else
    tell ssh_host_key failed 'written, but there is no sshd that would read it'
  fi
}

# Adds the bytes to the kernel's pool as what they are, random, and has its generator take them in at once. Only the
# two calls of random(4) can do that: RNDADDENTROPY and RNDRESEEDCRNG.
reseed_by_perl() {
  command -v perl >/dev/null 2>&1 && printf '%s\n' "$random" | perl -e '
    chomp(my $hex = <STDIN>);
    my $bytes = pack("H*", $hex);
    open(my $pool, "+<", "/dev/urandom") or exit 1;
    ioctl($pool, 0x40085203, pack("ii", 8 * length $bytes, length $bytes) . $bytes) or exit 1;
    ioctl($pool, 0x5207, 0) or exit 1;
  ' 2>/dev/null
}

reseed_by_python() {
  command -v python3 >/dev/null 2>&1 && printf '%s\n' "$random" | python3 -c '
import fcntl, struct, sys
data = bytes.fromhex(sys.stdin.readline().strip())
with open("/dev/urandom", "r+b", buffering=0) as pool:
    fcntl.ioctl(pool, 0x40085203, struct.pack("ii", 8 * len(data), len(data)) + data)
    fcntl.ioctl(pool, 0x5207)
' 2>/dev/null
}

# Whether the hypervisor can tell the kernel itself that it was cloned.
vmgenid() {
  for driver in /sys/bus/acpi/drivers/vmgenid /sys/bus/platform/drivers/vmgenid; do
    [ -d "$driver" ] || continue
    for device in "$driver"/*:*; do
      [ ! -e "$device" ] || { printf 'VMGenID: the kernel drives a device'; return; }
    done
    printf 'VMGenID: the kernel has the driver and no device'
    return
  done
  printf 'VMGenID: the kernel has no driver'
}

renew_randomness() {
  genid=$(vmgenid)
  credited='bytes of the host credited to the kernel and its generator reseeded'
  if reseed_by_perl; then
    tell randomness done "$credited, by perl; $genid"
  elif reseed_by_python; then
    tell randomness done "$credited, by python3; $genid"
  elif ! printf %s "$random" 2>/dev/null >/dev/urandom; then
    tell randomness failed "/dev/urandom takes nothing; $genid"
  else
    case $genid in
      *'drives a device') tell randomness done "bytes of the host mixed in; $genid, which reseeded its generator" ;;
      *) tell randomness failed "bytes of the host mixed in, but they count only when the kernel next reseeds by itself: neither perl nor python3 could credit them; $genid" ;;
    esac
  fi
}

# Prints how many TCP connections lead out of the machine, this session's aside.
count_connections() {
  all=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    grep -E '^ *[0-9]+: [0-9A-F:]+ [0-9A-F:]+ 0[124589B] ' |
    grep -vE '^ *[0-9]+: [0-9A-F:]+ (0{24}01000000|(0{16}FFFF0000)?[0-9A-F]{6}7F):' |
    grep -cvE '^ *[0-9]+: ([0-9A-F]+):[0-9A-F]+ \1:')
  if [ "$all" -gt 0 ]; then all=$((all - 1)); fi
  printf %s "$all"
}

reset_connections() {
  there=$(count_connections)
  if [ "$there" -eq 0 ]; then
    tell connections done 'there were none'
    return
  fi
  # client, port, server, port: everything goes but this very session and what stays in the machine.
  set -- $SSH_CONNECTION
  ss -K -t state connected "dport != :$2 and not dst $3 and not dst 127.0.0.0/8 and not dst [::1]" >/dev/null 2>&1
  left=$(count_connections)
  if [ "$left" -eq 0 ]; then
    tell connections done "$there reset by ss"
  else
    tell connections done "$left could not be ended from inside: the host answers the next packet of each with a reset"
  fi
}

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
`.replaceAll("\\${", "${");
