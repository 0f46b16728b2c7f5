import { shell } from "./shell.ts";

/** Shell function `renew_randomness`: makes the bytes of the host, in hex in `random`, part of what the kernel gives out. */
export const RANDOMNESS_SHELL = shell`
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
`;
