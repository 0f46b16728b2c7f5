import type { ArgumentSpecs } from "../shared/arguments.ts";

export const DEFAULT_PAYLOAD_BYTES = 51_200;
export const DEFAULT_INSTANCE_ID = "anonymous-instance";

/** Firecracker's command line. */
export const FIRECRACKER_ARGUMENTS: ArgumentSpecs = {
  "api-sock": {
    kind: "value",
    default: "/run/firecracker.socket",
    help: "Path to unix domain socket used by the API.",
  },
  id: { kind: "value", default: DEFAULT_INSTANCE_ID, help: "MicroVM unique identifier." },
  "seccomp-filter": {
    kind: "value",
    forbids: ["no-seccomp"],
    help: "Path to a custom seccomp filter. Accepted; QEMU's own sandbox is what is used.",
  },
  "no-seccomp": {
    kind: "flag",
    forbids: ["seccomp-filter"],
    help: "Run without seccomp filtering. Accepted; QEMU's own sandbox stays on.",
  },
  "start-time-us": { kind: "value", help: "Process start time (wall clock, microseconds)." },
  "start-time-cpu-us": { kind: "value", help: "Process start CPU time (microseconds)." },
  "parent-cpu-time-us": { kind: "value", help: "Parent process CPU time (microseconds)." },
  "config-file": { kind: "value", help: "Path to a file with the microVM configuration in JSON format." },
  metadata: { kind: "value", help: "Path to a file with metadata in JSON format to add to the mmds." },
  "no-api": {
    kind: "flag",
    requires: "config-file",
    help: "Start and use a microVM without an active API socket.",
  },
  "log-path": { kind: "value", help: "Path to a fifo or a file used for configuring the logger on startup." },
  level: { kind: "value", help: "Set the logger level." },
  module: { kind: "value", help: "Set the logger module filter. Accepted; there are no modules here." },
  "show-level": { kind: "flag", help: "Whether or not to output the level in the logs." },
  "show-log-origin": {
    kind: "flag",
    help: "Whether or not to show in the logs which code a line comes from.",
  },
  "metrics-path": {
    kind: "value",
    help: "Path to a fifo or a file used for configuring the metrics on startup.",
  },
  "boot-timer": { kind: "flag", help: "Accepted; there is no boot timer device." },
  version: { kind: "flag", help: "Print the binary version number." },
  "snapshot-version": { kind: "flag", help: "Print the supported data format version." },
  "describe-snapshot": {
    kind: "value",
    help: "Print the data format version of the provided snapshot state file.",
  },
  "http-api-max-payload-size": {
    kind: "value",
    default: String(DEFAULT_PAYLOAD_BYTES),
    help: "Http API request payload max size, in bytes.",
  },
  "mmds-size-limit": { kind: "value", help: "Mmds data store limit, in bytes." },
  "enable-pci": { kind: "flag", help: "Accepted; devices are attached by MMIO all the same." },
};
