import { shell } from "./shell.ts";

/** Shell function `reset_connections`: ends what the guest remembers of connections that are no more. */
export const CONNECTIONS_SHELL = shell`
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
  past=''
  if [ "$left" -lt "$there" ]; then past="$((there - left)) reset by ss"; fi
  if [ "$left" -gt 0 ]; then
    past="\${past:+$past; }$left could not be ended from inside: the host answers the next packet of each with a reset"
  fi
  tell connections done "$past"
}
`;
