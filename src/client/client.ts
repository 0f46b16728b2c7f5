import { Pool } from "undici";
import type { Audit, Repair } from "../contract/audit.ts";
import type { Health } from "../contract/health.ts";
import type { CreateMachine, ForkMachine, Machine, ResizeMachine } from "../contract/machine.ts";
import type {
  Compatibility,
  CreateSnapshot,
  RestoreSnapshot,
  Snapshot,
  SnapshotArtifact,
  Uploaded,
  UploadSnapshot,
} from "../contract/snapshot.ts";
import type { StorageReport } from "../contract/storage.ts";
import { ClientError, errorOfAnswer, errorOfConnection } from "./client-error.ts";

export interface CallOptions {
  /**
   * The only limit of a call: the daemon answers when the thing is done. An aborted call rejects with the
   * signal's reason; the daemon goes on with what it began.
   */
  readonly signal?: AbortSignal;
}

/** A machine, and whether this call made it (201) or found it made by the same request before (200). */
export interface MachineMade {
  readonly machine: Machine;
  readonly created: boolean;
}

/** The children of a fork, and whether this call made them (201) or found them made by the same request before (200). */
export interface Forked {
  readonly machines: Machine[];
  readonly created: boolean;
}

/** A file of a snapshot on its way. */
export interface ArtifactBytes {
  readonly size_bytes: number;
  readonly sha256_hex: string;
  /** All of it, once. Fails with a `ClientError` when the connection is lost before its end. Nobody checks the digest here. */
  readonly bytes: AsyncIterable<Uint8Array>;
}

/** The calls of the contract. Each rejects with a `ClientError`. */
export interface ComputerHostClient extends AsyncDisposable {
  health(options?: CallOptions): Promise<Health>;
  createMachine(body: CreateMachine, options?: CallOptions): Promise<MachineMade>;
  listMachines(options?: CallOptions): Promise<Machine[]>;
  getMachine(machineId: string, options?: CallOptions): Promise<Machine>;
  deleteMachine(machineId: string, options?: CallOptions): Promise<void>;
  stopMachine(machineId: string, options?: CallOptions): Promise<void>;
  startMachine(machineId: string, options?: CallOptions): Promise<Machine>;
  pauseMachine(machineId: string, options?: CallOptions): Promise<Machine>;
  resumeMachine(machineId: string, options?: CallOptions): Promise<Machine>;
  resizeMachine(machineId: string, body: ResizeMachine, options?: CallOptions): Promise<Machine>;
  forkMachine(machineId: string, body: ForkMachine, options?: CallOptions): Promise<Forked>;
  createSnapshot(
    machineId: string,
    body: CreateSnapshot,
    options?: CallOptions,
  ): Promise<{ snapshot: Snapshot; artifacts: SnapshotArtifact[] }>;
  listSnapshots(machineId: string, options?: CallOptions): Promise<Snapshot[]>;
  getSnapshot(snapshotId: string, options?: CallOptions): Promise<Snapshot>;
  deleteSnapshot(snapshotId: string, options?: CallOptions): Promise<void>;
  restoreSnapshot(snapshotId: string, body: RestoreSnapshot, options?: CallOptions): Promise<MachineMade>;
  /** Whether the snapshot can be restored on the daemon's host: live, from its disk or not at all, and why. */
  compatibility(snapshotId: string, options?: CallOptions): Promise<Compatibility>;
  /** Begins to fetch a file of a snapshot. Its bytes must be read, or the client closed. */
  openArtifact(snapshotId: string, artifactId: string, options?: CallOptions): Promise<ArtifactBytes>;
  /** Has the daemon send files of a snapshot to the URLs of a plan. */
  uploadSnapshot(snapshotId: string, plan: UploadSnapshot, options?: CallOptions): Promise<Uploaded>;
  storageReport(options?: CallOptions): Promise<StorageReport>;
  /** Every thing on the daemon's host that is its own, or should be there. */
  audit(options?: CallOptions): Promise<Audit>;
  /** Has the daemon mend what is not as it should be. */
  repair(options?: CallOptions): Promise<Repair>;
  /** Closes the connections. Calls under way are ended. */
  close(): Promise<void>;
}

type Method = "GET" | "POST" | "DELETE";

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** A client of the daemon that listens on the Unix socket `socketPath`. Connects with the first call. */
export function createClient({ socketPath }: { readonly socketPath: string }): ComputerHostClient {
  // A pool and not one connection: a list must not wait behind a create.
  const pool = new Pool("http://localhost", { socketPath, headersTimeout: 0, bodyTimeout: 0 });

  async function send(
    method: Method,
    path: string,
    body: object | undefined,
    options: CallOptions,
  ): Promise<Answer> {
    const { signal } = options;
    try {
      const { statusCode, body: stream } = await pool.request({
        method,
        path,
        ...(signal === undefined ? {} : { signal }),
        ...(body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      });
      return { status: statusCode, text: await stream.text() };
    } catch (error) {
      throw ourError(error, signal);
    }
  }

  async function call(
    method: Method,
    path: string,
    options: CallOptions = {},
    body?: object,
  ): Promise<Answer> {
    const answer = await send(method, path, body, options);
    if (answer.status >= 200 && answer.status < 300) return answer;
    throw errorOfAnswer(answer.status, answer.text);
  }

  async function openArtifact(path: string, { signal }: CallOptions = {}): Promise<ArtifactBytes> {
    try {
      const { statusCode, headers, body } = await pool.request({
        method: "GET",
        path,
        ...(signal === undefined ? {} : { signal }),
      });
      if (statusCode !== 200) throw errorOfAnswer(statusCode, await body.text());
      const size_bytes = Number(headers["content-length"] ?? Number.NaN);
      const [, sha256_hex] = /^"([0-9a-f]{64})"$/.exec(String(headers["etag"])) ?? [];
      if (!Number.isSafeInteger(size_bytes) || sha256_hex === undefined) {
        body.on("error", () => {}).destroy();
        throw new ClientError("bad_answer", "the daemon's answer does not say which bytes it carries", {
          status: statusCode,
        });
      }
      return { size_bytes, sha256_hex, bytes: withOurErrors(body, signal) };
    } catch (error) {
      throw ourError(error, signal);
    }
  }

  async function* withOurErrors(
    body: AsyncIterable<Uint8Array>,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    try {
      yield* body;
    } catch (error) {
      throw ourError(error, signal);
    }
  }

  function ourError(error: unknown, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted === true) return signal.reason;
    return error instanceof ClientError ? error : errorOfConnection(socketPath, error);
  }

  const machine = (id: string): string => `/machines/${encodeURIComponent(id)}`;
  const snapshot = (id: string): string => `/snapshots/${encodeURIComponent(id)}`;

  return {
    health: async (options) => objectOf(await call("GET", "/health", options)) as Health,
    createMachine: async (body, options) => made(await call("POST", "/machines", options, body)),
    listMachines: async (options) => field(await call("GET", "/machines", options), "machines"),
    getMachine: async (id, options) => field(await call("GET", machine(id), options), "machine"),
    deleteMachine: async (id, options) => {
      await call("DELETE", machine(id), options);
    },
    stopMachine: async (id, options) => {
      await call("POST", `${machine(id)}/stop`, options);
    },
    startMachine: async (id, options) =>
      field(await call("POST", `${machine(id)}/start`, options), "machine"),
    pauseMachine: async (id, options) =>
      field(await call("POST", `${machine(id)}/pause`, options), "machine"),
    resumeMachine: async (id, options) =>
      field(await call("POST", `${machine(id)}/resume`, options), "machine"),
    resizeMachine: async (id, body, options) =>
      field(await call("POST", `${machine(id)}/resize`, options, body), "machine"),
    forkMachine: async (id, body, options) => {
      const answer = await call("POST", `${machine(id)}/fork`, options, body);
      return { machines: field(answer, "machines"), created: answer.status === 201 };
    },
    createSnapshot: async (id, body, options) => {
      const answer = await call("POST", `${machine(id)}/snapshots`, options, body);
      return {
        snapshot: field(answer, "snapshot"),
        artifacts: field(answer, "artifacts"),
      };
    },
    listSnapshots: async (id, options) =>
      field(await call("GET", `${machine(id)}/snapshots`, options), "snapshots"),
    getSnapshot: async (id, options) => field(await call("GET", snapshot(id), options), "snapshot"),
    deleteSnapshot: async (id, options) => {
      await call("DELETE", snapshot(id), options);
    },
    restoreSnapshot: async (id, body, options) =>
      made(await call("POST", `${snapshot(id)}/restore`, options, body)),
    compatibility: async (id, options) =>
      objectOf(await call("GET", `${snapshot(id)}/compatibility`, options)) as Compatibility,
    openArtifact: (id, artifactId, options) =>
      openArtifact(`${snapshot(id)}/artifacts/${encodeURIComponent(artifactId)}`, options),
    uploadSnapshot: async (id, plan, options) =>
      objectOf(await call("POST", `${snapshot(id)}/upload`, options, plan)) as Uploaded,
    storageReport: async (options) =>
      objectOf(await call("GET", "/storage/report", options)) as StorageReport,
    audit: async (options) => objectOf(await call("GET", "/audit", options)) as Audit,
    repair: async (options) => objectOf(await call("POST", "/audit/repair", options)) as Repair,
    close: () => pool.destroy(),
    [Symbol.asyncDispose]: () => pool.destroy(),
  };
}

function made(answer: Answer): MachineMade {
  return { machine: field(answer, "machine"), created: answer.status === 201 };
}

/** What answers carry, by the name of the field. */
interface Fields {
  readonly machine: Machine;
  readonly machines: Machine[];
  readonly snapshot: Snapshot;
  readonly snapshots: Snapshot[];
  readonly artifacts: SnapshotArtifact[];
}

/** The field as the contract promises it: that the daemon keeps the contract is for its own tests to show. */
function field<Name extends keyof Fields>(answer: Answer, name: Name): Fields[Name] {
  const value = (objectOf(answer) as Partial<Fields>)[name];
  if (value === undefined) {
    throw new ClientError("bad_answer", `the daemon's answer has no ${name}`, { status: answer.status });
  }
  return value;
}

function objectOf({ status, text }: Answer): object {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new ClientError("bad_answer", `the daemon answered ${status} with something that is not JSON`, {
      status,
      cause,
    });
  }
  if (typeof value !== "object" || value === null) {
    throw new ClientError("bad_answer", `the daemon answered ${status} without an object`, { status });
  }
  return value;
}
