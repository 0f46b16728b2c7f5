import { isIP } from "node:net";
import { isAbsolute } from "node:path";
import { isId } from "./contract/ids.ts";

/** What an operator sets by environment variables; each has a default that starts a daemon. */
export interface Settings {
  readonly rootDir: string;
  readonly firecrackerPath: string | undefined;
  readonly jailerPath: string | undefined;
  readonly egressInterface: string | undefined;
  readonly httpAddress: { readonly host: string; readonly port: number } | undefined;
  readonly diskCloneMode: "auto" | "reflink" | "copy";
  readonly driveIoEngine: "Sync" | "Async";
  readonly enablePci: boolean;
  readonly reconcileIntervalMs: number;
  readonly loginCaPublicKey: string | undefined;
  readonly networkCidr: string;
  readonly egressAllow: readonly string[];
  readonly dns: readonly string[];
  readonly uidBase: number;
  readonly socketGroup: string | undefined;
  readonly memoryOvercommit: number;
  readonly poolSize: number;
  readonly readyTimeoutMs: number;
  readonly stopTimeoutMs: number;
  readonly defaultImage: string;
  readonly imageDir: string;
  readonly fileUrlDirs: readonly string[];
  readonly logLevel: LogLevel;
}

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

const PREFIX = "FIRECRACKER_HOST_";

/** One variable of the environment: how it is read and how `--help` and the README describe it. */
interface Variable<Value> {
  readonly name: string;
  readonly fallback: string;
  readonly meaning: string;
  readonly parse: (text: string) => Value;
}

function variable<Value>(
  name: string,
  fallback: string,
  meaning: string,
  parse: (text: string) => Value,
): Variable<Value> {
  return { name, fallback, meaning, parse };
}

const optionalText = (text: string): string | undefined => (text === "" ? undefined : text);

function absolutePath(text: string): string {
  if (!isAbsolute(text)) throw new TypeError("must be an absolute path");
  if (text.includes("\0") || text.includes("\n")) throw new TypeError("must not hold NUL or a line feed");
  return text.length > 1 ? text.replace(/\/+$/, "") : text;
}

const optionalPath = (text: string): string | undefined => (text === "" ? undefined : absolutePath(text));

function oneOf<const Choice extends string>(...choices: readonly Choice[]): (text: string) => Choice {
  return (text) => {
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw new TypeError(`must be one of ${choices.join(", ")}`);
    return choice;
  };
}

function wholeNumber(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) {
      throw new TypeError(`must be a whole number from ${minimum} to ${maximum}`);
    }
    return value;
  };
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;

/** Milliseconds of a duration such as `500ms`, `5s`, `1m30s`. */
export function parseDuration(text: string): number {
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text))
    throw new TypeError("must be a duration such as 500ms, 5s or 1m30s");
  let total = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) {
    total += Number(amount) * UNIT_MS[unit as keyof typeof UNIT_MS];
  }
  // Timers take whole milliseconds only.
  const wholeMs = Math.round(total);
  if (wholeMs < 1 || wholeMs > 86_400_000) throw new TypeError("must be at least 1ms and at most a day");
  return wholeMs;
}

function cidr(text: string): string {
  const [address = "", length = ""] = text.split("/");
  if (isIP(address) !== 4 || !/^\d{1,2}$/.test(length) || Number(length) > 32) {
    throw new TypeError(`must be an IPv4 network such as 10.200.0.0/16, and ${JSON.stringify(text)} is not`);
  }
  return text;
}

function poolCidr(text: string): string {
  const length = Number(cidr(text).split("/")[1]);
  if (length < 12 || length > 28) throw new TypeError("must have a prefix length from 12 to 28");
  return text;
}

function list<Item>(item: (text: string) => Item): (text: string) => readonly Item[] {
  return (text) =>
    text
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "")
      .map(item);
}

function ipv4(text: string): string {
  if (isIP(text) !== 4) throw new TypeError(`must be IPv4 addresses, and ${JSON.stringify(text)} is none`);
  return text;
}

function flag(text: string): boolean {
  if (["1", "true", "yes", "on"].includes(text.toLowerCase())) return true;
  if (["", "0", "false", "no", "off"].includes(text.toLowerCase())) return false;
  throw new TypeError("must be true or false");
}

function httpAddress(text: string): { host: string; port: number } | undefined {
  if (text === "") return undefined;
  const match = /^(?<host>\[[0-9a-fA-F:]+\]|[^:[\]]*):(?<port>\d{1,5})$/.exec(text);
  const port = Number(match?.groups?.port);
  if (match?.groups === undefined || port > 65_535)
    throw new TypeError("must be HOST:PORT, such as 127.0.0.1:8080");
  return { host: (match.groups.host ?? "").replace(/^\[|\]$/g, "") || "0.0.0.0", port };
}

function overcommit(text: string): number {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value < 0.1 || value > 100)
    throw new TypeError("must be a number from 0.1 to 100");
  return value;
}

function imageName(text: string): string {
  if (!isId(text))
    throw new TypeError("must be the name of an image: lower-case letters, digits and hyphens");
  return text;
}

function interfaceName(text: string): string | undefined {
  if (text === "") return undefined;
  if (text.length > 15 || /[\s/"]/.test(text)) throw new TypeError("must be the name of a network interface");
  return text;
}

function publicKey(text: string): string | undefined {
  if (text === "") return undefined;
  if (!/^[a-z0-9@.-]+ [A-Za-z0-9+/=]+( [^\n\r]*)?$/.test(text.trim())) {
    throw new TypeError("must be one public key in OpenSSH's format");
  }
  return text.trim();
}

/** Every variable the daemon reads. The README's table is checked against this list. */
export const VARIABLES = {
  rootDir: variable(
    `${PREFIX}ROOT_DIR`,
    "/var/lib/computer-host",
    "everything the daemon keeps",
    absolutePath,
  ),
  firecrackerPath: variable(
    "FIRECRACKER_BINARY_PATH",
    "",
    "the firecracker binary; set together with JAILER_BINARY_PATH",
    optionalPath,
  ),
  jailerPath: variable("JAILER_BINARY_PATH", "", "the jailer binary", optionalPath),
  egressInterface: variable(
    `${PREFIX}EGRESS_INTERFACE`,
    "",
    "where guests' packets leave; default: the default route's",
    interfaceName,
  ),
  httpAddress: variable(
    `${PREFIX}HTTP_ADDR`,
    "",
    "also serve the API on this TCP address (HOST:PORT, no authentication)",
    httpAddress,
  ),
  diskCloneMode: variable(
    `${PREFIX}DISK_CLONE_MODE`,
    "auto",
    "auto, reflink (never copy) or copy",
    oneOf("auto", "reflink", "copy"),
  ),
  driveIoEngine: variable(
    `${PREFIX}DRIVE_IO_ENGINE`,
    "Sync",
    "how VMMs read and write disks: Sync, or Async (io_uring); for machines made from then on",
    oneOf("Sync", "Async"),
  ),
  enablePci: variable(
    `${PREFIX}ENABLE_PCI`,
    "false",
    "give guests a PCI bus; for machines made from then on",
    flag,
  ),
  reconcileIntervalMs: variable(
    `${PREFIX}RECONCILE_INTERVAL`,
    "5s",
    "how often to compare the host with the state, and mend it",
    parseDuration,
  ),
  loginCaPublicKey: variable(
    "GUEST_LOGIN_CA_PUBLIC_KEY",
    "",
    "SSH user CA that every machine trusts",
    publicKey,
  ),
  networkCidr: variable(
    `${PREFIX}NETWORK_CIDR`,
    "10.200.0.0/16",
    "pool of the machines' addresses on this host",
    poolCidr,
  ),
  egressAllow: variable(
    `${PREFIX}EGRESS_ALLOW`,
    "",
    "private networks that guests may reach, comma-separated",
    list(cidr),
  ),
  dns: variable(`${PREFIX}DNS`, "", "resolvers for guests, comma-separated; default: the host's", list(ipv4)),
  uidBase: variable(
    `${PREFIX}UID_BASE`,
    "200000",
    "first uid and gid of the VMMs, which have one each",
    wholeNumber(1000, 2_000_000_000),
  ),
  socketGroup: variable(`${PREFIX}SOCKET_GROUP`, "", "group that may use the socket", optionalText),
  memoryOvercommit: variable(
    `${PREFIX}MEMORY_OVERCOMMIT`,
    "1.0",
    "guest memory promised, as a share of the host's; what restores share counts for each",
    overcommit,
  ),
  poolSize: variable(`${PREFIX}POOL_SIZE`, "8", "network slots kept ready", wholeNumber(0, 1024)),
  readyTimeoutMs: variable(
    `${PREFIX}READY_TIMEOUT`,
    "60s",
    "how long a guest may take to become ready, or a woken one to become a machine of its own",
    parseDuration,
  ),
  stopTimeoutMs: variable(
    `${PREFIX}STOP_TIMEOUT`,
    "10s",
    "how long a guest may take to shut down",
    parseDuration,
  ),
  defaultImage: variable(
    `${PREFIX}DEFAULT_IMAGE`,
    "debian-slim",
    "image of a create that names none",
    imageName,
  ),
  imageDir: variable(
    `${PREFIX}IMAGE_DIR`,
    "/var/cache/computer-host/images",
    "where local images are",
    absolutePath,
  ),
  fileUrlDirs: variable(
    `${PREFIX}FILE_URL_DIRS`,
    "",
    "folders whose files may be named by file URLs; default: IMAGE_DIR",
    list(absolutePath),
  ),
  logLevel: variable(`${PREFIX}LOG_LEVEL`, "info", LOG_LEVELS.join(", "), oneOf(...LOG_LEVELS)),
} as const satisfies Record<keyof Settings, Variable<unknown>>;

/** Names of the original's variables that have our prefix and mean nothing here are worth a warning, not an error. */
export interface SettingsResult {
  readonly settings: Settings;
  readonly warnings: readonly string[];
}

/**
 * Reads the settings from an environment. An unknown variable with our prefix is a warning.
 * Throws an Error that names each variable with a bad value.
 */
export function readSettings(environment: Readonly<Record<string, string | undefined>>): SettingsResult {
  const values: Record<string, unknown> = {};
  const problems: string[] = [];
  for (const [key, { name, fallback, parse }] of Object.entries(VARIABLES)) {
    const text = environment[name]?.trim() ?? "";
    try {
      values[key] = parse(text === "" ? fallback : text);
    } catch (error) {
      problems.push(
        `${name}=${JSON.stringify(text)} ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }
  if (problems.length > 0) throw new Error(problems.join("; "));
  const settings = values as unknown as Settings;
  const known = new Set<string>(Object.values(VARIABLES).map(({ name }) => name));
  const warnings = Object.keys(environment)
    .filter((name) => name.startsWith(PREFIX) && !known.has(name))
    .map((name) => `${name} is not a setting of this daemon and was ignored`);
  return {
    settings: settings.fileUrlDirs.length > 0 ? settings : { ...settings, fileUrlDirs: [settings.imageDir] },
    warnings,
  };
}
