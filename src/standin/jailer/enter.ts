/**
 * The way into the jail. Node can neither join namespaces nor mount, so the jailer replaces itself by a chain of
 * util-linux programs, each of which does one thing and execs the next. The process id stays the same all along
 * (but for --daemonize and --new-pid-ns), no process is left behind, and every mount is made in a mount namespace
 * that ends with the VMM: the host never sees one.
 */
import type { JailOptions } from "./options.ts";

/**
 * First stage: as root, in the new mount namespace, with the host's tree still there.
 * pivot_root rather than a bare chroot, so that nothing of the host's tree stays mounted under the VMM.
 * The umask gives the nodes their modes: mknod's own option needs a /proc.
 */
const OUTER = `
set -e
trap '[ $? -eq 0 ] || exit 1' EXIT
root=$1 node=$2 code=$3 owner=$4 name=$5 mode=$6 uffd=$7 inner=$8
shift 8
mount --bind "$root" "$root"
mount -o bind,ro,nosuid,nodev /usr "$root/usr"
mount -o bind,ro,nosuid,nodev "$node" "$root/standin/node"
mount -o bind,ro,nosuid,nodev "$code" "$root/standin/code"
cd "$root"
mkdir -m 0600 old_root
pivot_root . old_root
cd /
(
  umask 0177
  mknod /dev/net/tun c 10 200
  mknod /dev/kvm c 10 232
  mknod /dev/urandom c 1 9 || echo "Warning! Could not create /dev/urandom device inside jailer."
  if [ -n "$uffd" ]; then mknod /dev/userfaultfd c 10 "$uffd"; chown "$owner" /dev/userfaultfd; fi
  umask 0
  [ -e /dev/null ] || mknod /dev/null c 1 3
)
chown "$owner" /dev/net/tun /dev/kvm /dev/urandom
pid=/$name.pid
case $mode in
  plain) set -C; printf %s $$ > "$pid"; exec /bin/sh -ec "$inner" sh "$@" ;;
  plain-pidns|session-pidns)
    exec 3<&0
    exec unshare --pid /bin/sh -ec "$FORK" sh "$pid" "$mode" /bin/sh -ec "$inner" sh "$@" ;;
  daemon)
    exec setsid --fork /bin/sh -ec 'set -C; printf %s $$ > "$1"; shift; exec "$@"' sh "$pid" \\
      /bin/sh -ec "$inner" sh "$@" </dev/null >&0 2>&0 ;;
  daemon-pidns)
    exec setsid --fork /bin/sh -ec 'exec 3<&0; exec unshare --pid "$@"' sh \\
      /bin/sh -ec "$FORK" sh "$pid" "$mode" /bin/sh -ec "$inner" sh "$@" </dev/null >&0 2>&0 ;;
esac
`;

/**
 * The fork into a new pid namespace: the first child is its init, and the parent, which is still outside, writes
 * down the pid that the host knows it by. Standard input is handed over as 3, since a shell takes it away from a
 * background process.
 */
const FORK = `
pid=$1 mode=$2
shift 2
set -C
if [ "$mode" = session-pidns ]; then setsid "$@" <&3 3<&- & else "$@" <&3 3<&- & fi
printf %s $! > "$pid"
`;

/**
 * Last stage: inside, as root, in the final pid namespace, so that /proc shows that one only. umount wants a /proc,
 * so the host's tree goes away here.
 */
const INNER = `
owner=$1
shift
mount -t proc -o nosuid,nodev,noexec,hidepid=2 proc /proc
umount -l /old_root
rmdir /old_root
unset FORK PWD OLDPWD
exec setpriv --reuid "\${owner%:*}" --regid "\${owner#*:}" --clear-groups \\
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs -- "$@"
`;

const PATH = "/usr/sbin:/usr/bin";

export interface Entry {
  readonly options: JailOptions;
  readonly nodeFile: string;
  /** The folder that holds the stand-in's code, bundled or not. */
  readonly codeDir: string;
  readonly accelerator: "kvm" | "tcg";
  readonly uffdMinor: number | undefined;
  /** True if this process leads its session: its exit would send SIGHUP to what it leaves behind. */
  readonly isSessionLeader: boolean;
  /** Arguments of the jailed program, its name not among them. */
  readonly programArguments: readonly string[];
}

export interface Command {
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** The command that takes this process into the jail. Its environment is all that the VMM will see. */
export function entryCommand(entry: Entry): Command {
  const { options } = entry;
  const { noFile, fileSize } = options.limits;
  const limits = [`--nofile=${noFile}:${noFile}`];
  if (fileSize !== undefined) limits.push(`--fsize=${fileSize}:${fileSize}`);
  const owner = `${options.uid}:${options.gid}`;
  const netns = options.netns === undefined ? [] : ["/usr/bin/nsenter", `--net=${options.netns}`];
  const uffdMinor = entry.uffdMinor === undefined ? "" : String(entry.uffdMinor);
  const argv = [
    ["/usr/bin/prlimit", ...limits],
    netns,
    ["/usr/bin/unshare", "--mount", "--propagation", "slave"],
    ["/bin/sh", "-c", OUTER, "sh"],
    [
      options.rootDir,
      entry.nodeFile,
      entry.codeDir,
      owner,
      options.execName,
      modeOf(entry),
      uffdMinor,
      INNER,
    ],
    [owner, `/${options.execName}`, ...entry.programArguments],
  ].flat();
  return { argv, env: { PATH, FORK, STANDIN_ACCELERATOR: entry.accelerator } };
}

function modeOf(entry: Entry): string {
  const { daemonize, newPidNs } = entry.options;
  if (daemonize) return newPidNs ? "daemon-pidns" : "daemon";
  if (!newPidNs) return "plain";
  return entry.isSessionLeader ? "session-pidns" : "plain-pidns";
}
