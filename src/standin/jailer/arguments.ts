import type { ArgumentSpecs } from "../shared/arguments.ts";

/** The jailer's command line. */
export const JAILER_ARGUMENTS: ArgumentSpecs = {
  id: { kind: "value", required: true, help: "Jail ID." },
  "exec-file": { kind: "value", required: true, help: "File path to exec into." },
  uid: { kind: "value", required: true, help: "The user identifier the jailer switches to after exec." },
  gid: { kind: "value", required: true, help: "The group identifier the jailer switches to after exec." },
  "chroot-base-dir": {
    kind: "value",
    default: "/srv/jailer",
    help: "The base folder where chroot jails are located.",
  },
  netns: { kind: "value", help: "Path to the network namespace this microVM should join." },
  daemonize: {
    kind: "flag",
    help: "Leave the terminal and the caller's session before exec, with the standard I/O on /dev/null.",
  },
  "new-pid-ns": { kind: "flag", help: "Exec into a new PID namespace." },
  cgroup: {
    kind: "list",
    help: "Cgroup file and value, as <cgroup_file>=<value> (e.g. cpu.shares=10). May be given several times.",
  },
  "resource-limit": {
    kind: "list",
    help: "Resource limit, as <resource>=<value>: fsize (bytes a file may have) or no-file (open files).",
  },
  "cgroup-version": {
    kind: "value",
    default: "1",
    help: "Select the cgroup version used by the jailer.",
  },
  "parent-cgroup": {
    kind: "value",
    help: "Parent cgroup in which the cgroup of this microvm will be placed.",
  },
  version: { kind: "flag", help: "Print the binary version number." },
};
