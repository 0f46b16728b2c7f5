/**
 * The one registry of what can go wrong, as clients see it.
 * docs/errors.md is generated from it; each code is stable, the sentences may change.
 */
export const ERRORS = {
  bad_request: {
    status: 400,
    meaning: "The request is malformed: a field is missing, unknown, of the wrong type or out of range.",
  },
  contradiction: {
    status: 400,
    meaning: "The request contradicts itself, such as a path id and another id in the body.",
  },
  bad_json: { status: 400, meaning: "The body is not JSON." },
  machine_not_found: { status: 404, meaning: "No machine has this id." },
  snapshot_not_found: { status: 404, meaning: "No snapshot has this id." },
  artifact_not_found: { status: 404, meaning: "The snapshot has no artifact with this id." },
  route_not_found: { status: 404, meaning: "The daemon has no such call." },
  method_not_allowed: { status: 405, meaning: "The path exists, but not with this method." },
  machine_exists: {
    status: 409,
    meaning: "A machine with this id exists and was asked for with another body.",
  },
  snapshot_exists: { status: 409, meaning: "A snapshot with this id exists." },
  record_set_aside: {
    status: 409,
    meaning:
      "The state has a record of this id that this version cannot use, and what it holds is kept; the answer says what to do.",
  },
  wrong_phase: { status: 409, meaning: "The machine's phase does not allow this." },
  operation_cancelled: {
    status: 409,
    meaning: "Another request, such as a delete, ended this operation; it was undone.",
  },
  range_not_satisfiable: { status: 416, meaning: "The range asked for lies outside the artifact." },
  body_too_large: { status: 413, meaning: "The body is larger than the daemon takes." },
  unsupported_media_type: { status: 415, meaning: "The body is not application/json." },
  image_not_found: { status: 422, meaning: "No image has this name in the image folder." },
  image_invalid: {
    status: 422,
    meaning: "The image or artifact cannot be used: broken manifest, wrong digest or not what it says it is.",
  },
  artifact_refused: { status: 422, meaning: "The artifact's URL is not one that this daemon fetches." },
  artifact_unavailable: { status: 422, meaning: "The artifact could not be fetched." },
  not_supported: { status: 422, meaning: "This daemon cannot do this yet, and does not pretend to." },
  disk_too_small: {
    status: 422,
    meaning:
      "The disk asked for is smaller than the image or snapshot it is made from, or than the machine's disk is.",
  },
  clone_refused: {
    status: 422,
    meaning: "The filesystem cannot clone by reference and copying is not allowed by the settings.",
  },
  snapshot_invalid: { status: 422, meaning: "The snapshot's files are missing or damaged." },
  snapshot_incompatible: {
    status: 422,
    meaning:
      "The snapshot cannot be restored in this way on this host; the details carry the verdict that GET /snapshots/{id}/compatibility gives.",
  },
  snapshot_unavailable: { status: 422, meaning: "An artifact of the snapshot could not be downloaded." },
  no_memory_base: {
    status: 422,
    meaning:
      "The machine has no earlier snapshot with memory that a diff could stand on, or does not track dirty pages.",
  },
  upload_failed: {
    status: 502,
    meaning: "The store did not take a part of an upload; the details name the part.",
  },
  internal: { status: 500, meaning: "A bug of the daemon. The log has the details under the request id." },
  vmm_failed: { status: 502, meaning: "The VMM or its jailer failed; the details carry its own words." },
  host_full: { status: 503, meaning: "The host has no room for this machine: memory, slots or pids." },
  shutting_down: { status: 503, meaning: "The daemon is ending; ask again once it is back." },
  guest_not_ready: {
    status: 504,
    meaning: "The guest did not become ready in time; the details carry the tail of its console.",
  },
  vmm_timeout: { status: 504, meaning: "The VMM did not answer in time." },
  disk_full: { status: 507, meaning: "The daemon's filesystem has no room left." },
} as const satisfies Record<string, { status: number; meaning: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** Details of an error: plain JSON, safe to show to a client. */
export type ErrorDetails = Readonly<Record<string, unknown>>;

/** The one error that crosses rooms. Anything else that reaches the API is a bug and answers 500. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails | undefined;

  constructor(code: ErrorCode, message: string, options: { details?: ErrorDetails; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "AppError";
    this.code = code;
    this.details = options.details;
  }

  /** The HTTP status of this error's code. */
  get status(): number {
    return ERRORS[this.code].status;
  }
}

/** The sentence of anything that was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The system's code of an error (`ENOENT`, `EEXIST`, …), or undefined. */
export function errnoOf(thrown: unknown): string | undefined {
  if (!(thrown instanceof Error) || !("code" in thrown)) return undefined;
  return typeof thrown.code === "string" ? thrown.code : undefined;
}

/** True for an error of the system that says that a filesystem, or somebody's share of it, is full. */
export function isDiskFull(thrown: unknown): boolean {
  const errno = errnoOf(thrown);
  return errno === "ENOSPC" || errno === "EDQUOT";
}
