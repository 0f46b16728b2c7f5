/**
 * Loaded into the daemon under test (`node --import`), in front of everything else: makes each side effect of it a
 * boundary at which it can be killed. A boundary lies before and after each call of Node's that changes something
 * outside of the process: files, subprocesses, signals, and requests to a VMM. None is listed by hand.
 *
 * FAULTS names a JSON file with `{ "at": n, "phase": "before" | "after" }`, or `{}` for a survey; it is read when the
 * daemon gets SIGUSR2, and at its start when it also says `"from": "start"`. From then on the effects are counted, and
 * the n-th is the daemon's last. With `"fail": "ENOSPC"` (or another code) it lives on, and the n-th effect fails with it
 * instead of happening, or with `"lasting": true` each from the n-th on until the next plan. FAULTS_LOG is a file to which each effect is written as a line: number and name.
 */
import childProcess, { type ChildProcess } from "node:child_process";
import fs from "node:fs";
import fsPromises from "node:fs/promises";
import { syncBuiltinESMExports } from "node:module";
import net from "node:net";

interface Plan {
  readonly at?: number;
  readonly phase?: "before" | "after";
  readonly from?: "start";
  readonly fail?: string;
  readonly lasting?: boolean;
}

type Callable = (this: unknown, ...parameters: never[]) => unknown;

const real = {
  writeSync: fs.writeSync,
  readFileSync: fs.readFileSync,
  kill: process.kill.bind(process),
};
const planFile = process.env["FAULTS"] ?? "";
const log = fs.openSync(process.env["FAULTS_LOG"] ?? "/dev/null", "a");
let plan: Plan | undefined;
let count = 0;

function arm(onlyFromStart: boolean): void {
  const read: Plan = JSON.parse(real.readFileSync(planFile, "utf8"));
  if (onlyFromStart && read.from !== "start") return;
  count = 0;
  plan = read;
}

/** What the system says where an effect fails. */
const SAID: Readonly<Record<string, string>> = {
  ENOSPC: "No space left on device",
  EDQUOT: "Disk quota exceeded",
  EIO: "Input/output error",
};

/** The code with which effect `number` is to fail. */
function failureOf(number: number): string | undefined {
  if (plan?.fail === undefined || plan.at === undefined) return undefined;
  return plan.at === number || (plan.lasting === true && number > plan.at) ? plan.fail : undefined;
}

/** One more effect is about to happen. Returns what is to be called once it has. Throws where it is to fail. */
function effect(name: string, canFail = true): () => void {
  if (plan === undefined) return () => {};
  count += 1;
  const number = count;
  real.writeSync(log, `${number} ${name}\n`);
  const code = failureOf(number);
  if (code !== undefined && canFail)
    throw Object.assign(new Error(`${code}: ${SAID[code]}, ${name}`), { code, syscall: name.split(" ")[0] });
  if (plan.fail !== undefined || plan.at !== number) return () => {};
  if (plan.phase === "before") die();
  return die;
}

function die(): void {
  real.kill(process.pid, "SIGKILL");
  // The signal is on its way; nothing else may happen before it arrives.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
}

/** Puts a boundary around a method, whether it answers at once or by a promise. */
function wrap(
  owner: object,
  name: string,
  label: string,
  counts: (parameters: readonly unknown[]) => boolean,
): void {
  const original: unknown = Reflect.get(owner, name);
  if (typeof original !== "function") throw new TypeError(`there is no ${label}`);
  const wrapped = function (this: unknown, ...parameters: unknown[]): unknown {
    if (!counts(parameters)) return Reflect.apply(original, this, parameters);
    const name = `${label} ${describe(parameters[0])}`;
    let after: () => void;
    try {
      after = effect(name, label !== "kill");
    } catch (error) {
      if (label.endsWith("Sync")) throw error;
      return Promise.reject(error);
    }
    const result: unknown = Reflect.apply(original, this, parameters);
    if (!(result instanceof Promise)) {
      after();
      return result;
    }
    return result.then((value: unknown) => {
      after();
      return value;
    });
  };
  Object.defineProperty(owner, name, {
    value: wrapped satisfies Callable,
    configurable: true,
    writable: true,
  });
}

function describe(parameter: unknown): string {
  return typeof parameter === "string" || typeof parameter === "number" ? String(parameter).slice(-80) : "";
}

const always = (): boolean => true;
const { O_WRONLY, O_RDWR, O_CREAT, O_TRUNC } = fs.constants;
/** Opening changes something where it may make or empty a file. */
const mayMake = ([, flags]: readonly unknown[]): boolean =>
  typeof flags === "number"
    ? (flags & (O_CREAT | O_TRUNC)) !== 0 && (flags & (O_WRONLY | O_RDWR)) !== 0
    : typeof flags === "string" && /[wa]/.test(flags);

const CHANGES = [
  "mkdir",
  "rename",
  "rm",
  "link",
  "unlink",
  "symlink",
  "writeFile",
  "copyFile",
  "chmod",
  "chown",
  "truncate",
  "rmdir",
] as const;
for (const name of CHANGES) {
  wrap(fsPromises, name, name, always);
  wrap(fs, `${name}Sync`, `${name}Sync`, always);
}
wrap(fsPromises, "open", "open", mayMake);
wrap(fs, "openSync", "openSync", mayMake);
const handle = await fsPromises.open("/dev/null", "r");
const handles: object = Object.getPrototypeOf(handle);
await handle.close();
for (const name of ["write", "writeFile", "truncate", "sync", "datasync", "chmod", "chown"])
  wrap(handles, name, `handle.${name}`, always);
wrap(process, "kill", "kill", ([, signal]) => signal !== 0);

const { spawn } = childProcess;
childProcess.spawn = ((...parameters: Parameters<typeof spawn>): ChildProcess => {
  const [file, args, options] = parameters;
  let after = (): void => {};
  try {
    after = effect(`spawn ${[file, ...(Array.isArray(args) ? args : [])].join(" ").slice(0, 80)}`);
  } catch (error) {
    // A program that meets the fault says so and ends.
    const said = `echo "${file}: ${SAID[String(Reflect.get(Object(error), "code"))]}" >&2; exit 1`;
    return Reflect.apply(spawn, childProcess, ["sh", ["-c", said], options ?? {}]);
  }
  const child: ChildProcess = Reflect.apply(spawn, childProcess, parameters);
  // The first listener: nobody of the daemon has heard of the end yet.
  child.once("exit", after);
  return child;
}) as typeof spawn;

/** A request to a VMM is one effect: its first bytes go out, its first bytes come back. */
const { connect } = net;
net.connect = ((...parameters: Parameters<typeof connect>) => {
  const socket: net.Socket = Reflect.apply(connect, net, parameters);
  const [target] = parameters as unknown[];
  const path = typeof target === "object" && target !== null && "path" in target ? String(target.path) : "";
  if (!path.startsWith("/proc/self/fd/")) return socket;
  const write = socket.write.bind(socket);
  socket.write = ((...written: Parameters<typeof write>) => {
    const line = String(written[0]).split("\r\n")[0] ?? "";
    if (!/^(PUT|PATCH) /.test(line)) return Reflect.apply(write, undefined, written);
    const after = effect(`vmm ${line.replace(" HTTP/1.1", "")}`, false);
    const read = socket.read.bind(socket);
    // Not a listener for data, which would take the bytes from whoever reads them.
    socket.read = ((size?: number): unknown => {
      const bytes: unknown = read(size);
      if (bytes === null) return bytes;
      socket.read = read;
      after();
      return bytes;
    }) as typeof read;
    return Reflect.apply(write, undefined, written);
  }) as typeof write;
  return socket;
}) as typeof connect;

syncBuiltinESMExports();
process.on("SIGUSR2", () => arm(false));
if (planFile !== "") arm(true);
