/** From a request to what it asks for. Everything that can be refused without knowing the VM is refused here. */
import { type Action, act } from "./actions.ts";
import * as bodies from "./bodies.ts";
import { anything, decodeBody, type Decoder } from "./decode.ts";
import { Fault } from "./fault.ts";
import type { Request } from "./http-connection.ts";
import { JsonError } from "./json-reader.ts";

/** Returns what the request asks for. Throws Fault. */
export function route(request: Request): Action {
  const { method, body } = request;
  const [head = "", ...rest] = pathTokens(request.path);
  try {
    if (body !== undefined && (method === "GET" || method === "DELETE")) {
      throw new Fault(method === "GET" ? "GET request cannot have a body." : "Empty Delete request.");
    }
    const action = parse(request, head, rest);
    if (action !== undefined) return action;
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw new Fault(`An error occurred when deserializing the json body of a request: ${error.message}.`, {
      cause: error,
    });
  }
  throw new Fault(`Invalid request method and/or path: ${method} ${head}.`);
}

/** Leading slashes don't count, nor does one at the end. */
function pathTokens(path: string): readonly string[] {
  const tokens = path.replace(/^\/+/, "").split("/");
  if (tokens.at(-1) === "") tokens.pop();
  return tokens;
}

function parse({ method, body }: Request, head: string, rest: readonly string[]): Action | undefined {
  switch (method) {
    case "GET":
      return parseGet(head, rest);
    case "PUT":
      if (body === undefined) throw new Fault("Empty PUT request.");
      return parsePut(head, rest, body);
    case "PATCH":
      return parsePatch(head, rest, body);
    case "DELETE":
      if (head !== "drives" && head !== "pmem" && head !== "network-interfaces") return undefined;
      checkedId(rest[0]);
      return act("unplug", undefined);
  }
}

function parseGet(head: string, [next]: readonly string[]): Action | undefined {
  switch (head) {
    case "":
      return act("get-instance-info", undefined);
    case "version":
      return act("get-version", undefined);
    case "vm":
      return next === "config" ? act("get-vm-config", undefined) : undefined;
    case "machine-config":
      return act("get-machine-config", undefined);
    case "mmds":
      return act("get-mmds", undefined);
    case "hotplug":
      return next === "memory" ? act("other-device", undefined) : undefined;
    case "balloon":
      if (next === undefined) return act("get-balloon", undefined);
      if (next === "statistics") return act("get-balloon-statistics", undefined);
      if (next === "hinting") return act("other-device", undefined);
      throw new Fault(`Unrecognized GET request path \`${next}\`.`);
    default:
      return undefined;
  }
}

function parsePut(head: string, [next]: readonly string[], body: string): Action | undefined {
  switch (head) {
    case "actions": {
      const action = decodeBody(bodies.actionBody, body).action_type;
      if (action === "InstanceStart") return act("start", undefined);
      return act(action === "FlushMetrics" ? "flush-metrics" : "send-ctrl-alt-del", undefined);
    }
    case "boot-source":
      return act("configure-boot-source", decodeBody(bodies.bootSource, body));
    case "machine-config": {
      const config = decodeBody(bodies.machineConfig, body);
      return act("update-machine-config", config, config.cpu_template !== null);
    }
    case "drives":
      return act(
        "insert-drive",
        withId(bodies.drive, body, next, (drive) => drive.drive_id),
      );
    case "network-interfaces": {
      const config = withId(bodies.networkInterface, body, next, (nic) => nic.iface_id, true);
      return act("insert-network-interface", config);
    }
    case "entropy":
      return act("set-entropy", decodeBody(bodies.entropy, body));
    case "balloon":
      return act("set-balloon", decodeBody(bodies.balloon, body));
    case "serial":
      return act("configure-serial", decodeBody(bodies.serial, body));
    case "logger":
      return act("configure-logger", decodeBody(bodies.logger, body));
    case "metrics":
      return act("configure-metrics", decodeBody(bodies.metrics, body).metrics_path);
    case "mmds": {
      if (next === undefined) return act("put-mmds", decodeBody(anything, body));
      if (next !== "config") throw new Fault(`Unrecognized PUT request path \`${next}\`.`);
      const config = decodeBody(bodies.mmdsConfig, body);
      return act("set-mmds-config", config, config.version === "V1");
    }
    case "snapshot":
      return parsePutSnapshot(next, body);
    case "vsock":
      decodeBody(bodies.vsock, body);
      return act("set-other-device", NO_VSOCK);
    case "pmem":
      checkedId(next);
      decodeBody(anything, body);
      return act("set-other-device", `Pmem config error: ${NO_DEVICE}`);
    case "hotplug":
      if (next !== "memory") return undefined;
      decodeBody(anything, body);
      return act("set-other-device", `Memory hotplug config error: ${NO_DEVICE}`);
    case "cpu-config":
      decodeBody(anything, body);
      return act("set-other-device", `Configure CPU error: ${NO_DEVICE}`);
    default:
      return undefined;
  }
}

const NO_DEVICE = "the QEMU stand-in does not have this; the real Firecracker does";
const NO_VSOCK = `Vsock config error: Cannot create vsock device: ${NO_DEVICE}`;

function parsePutSnapshot(operation: string | undefined, body: string): Action {
  if (operation === "create") return act("create-snapshot", decodeBody(bodies.snapshotCreate, body));
  if (operation === undefined) throw new Fault("Missing snapshot operation type.");
  if (operation !== "load")
    throw new Fault(`Invalid request method and/or path: PUT /snapshot/${operation}.`);
  const config = decodeBody(bodies.snapshotLoad, body);
  if (config.mem_backend !== null && config.mem_file_path !== null) {
    throw new JsonError(
      "too many fields: either `mem_backend` or `mem_file_path` exclusively is required",
      undefined,
    );
  }
  if (config.mem_backend === null && config.mem_file_path === null) {
    throw new JsonError("missing field: either `mem_backend` or `mem_file_path` is required", undefined);
  }
  const deprecated = config.mem_file_path !== null || config.enable_diff_snapshots;
  return act("load-snapshot", config, deprecated);
}

function parsePatch(head: string, [next]: readonly string[], body: string | undefined): Action | undefined {
  if (head === "balloon" && next === "hinting") return act("other-device", undefined);
  if (body === undefined) throw new Fault("Empty PATCH request.");
  switch (head) {
    case "balloon":
      if (next === "statistics") {
        const intervalS = decodeBody(bodies.balloonStatsUpdate, body).stats_polling_interval_s;
        return act("update-balloon-statistics", intervalS);
      }
      return act("update-balloon", decodeBody(bodies.balloonUpdate, body).amount_mib);
    case "drives":
      return act(
        "update-drive",
        withId(bodies.driveUpdate, body, next, (drive) => drive.drive_id),
      );
    case "network-interfaces": {
      const config = withId(bodies.networkInterfaceUpdate, body, next, (nic) => nic.iface_id, true);
      return act("update-network-interface", config);
    }
    case "machine-config": {
      const config = decodeBody(bodies.machineConfigUpdate, body);
      if (Object.values(config).every((value) => value === null)) throw new Fault("Empty PATCH request.");
      return act("update-machine-config", config, config.cpu_template !== null);
    }
    case "mmds":
      return act("patch-mmds", decodeBody(anything, body));
    case "vm":
      return act(decodeBody(bodies.vmState, body).state === "Paused" ? "pause" : "resume", undefined);
    case "pmem":
      checkedId(next);
      return act("other-device", undefined);
    case "hotplug":
      return next === "memory" ? act("other-device", undefined) : undefined;
    default:
      return undefined;
  }
}

/** Decodes a body that repeats the id in its path. `quotes`: network interfaces say both ids when they differ. */
function withId<T>(
  decode: Decoder<T>,
  body: string,
  idInPath: string | undefined,
  idOf: (config: T) => string,
  quotes = false,
): T {
  const id = checkedId(idInPath);
  const config = decodeBody(decode, body);
  const other = idOf(config);
  if (id === other) return config;
  throw new Fault(
    quotes
      ? `The id from the path [${id}] does not match the id from the body [${other}]!`
      : "The id from the path does not match the id from the body!",
  );
}

function checkedId(id: string | undefined): string {
  if (id === undefined || id === "") throw new Fault("The ID cannot be empty.");
  if (!/^[\p{Alphabetic}\p{N}_]+$/u.test(id)) {
    throw new Fault("API Resource IDs can only contain alphanumeric characters and underscores.");
  }
  return id;
}
