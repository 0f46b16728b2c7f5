import { shell } from "./shell.ts";

/** Shell function `give_identity`: the seed's files, and what goes by them in the running guest. */
export const IDENTITY_SHELL = shell`
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
`;
