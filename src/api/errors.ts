import type { FastifyError } from "fastify";
import { AppError, errnoOf, messageOf } from "../contract/errors.ts";
import type { ErrorAnswer } from "../contract/health.ts";

/** Everything that a handler can throw, as the one error that clients see. */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError && thrown.code !== "internal") return thrown;
  const shortage = shortageOf(thrown);
  if (shortage !== undefined) return new AppError(shortage, SHORTAGES[shortage], { cause: thrown });
  if (thrown instanceof AppError) return thrown;
  if (isFastifyError(thrown)) return fromFastify(thrown);
  return new AppError("internal", "the daemon failed in a way it did not expect; its log has the details", {
    cause: thrown,
  });
}

const SHORTAGES = {
  disk_full: "the daemon's filesystem has no room left for a file of this size",
  host_full: "the host has no memory, process or open file left for this",
} as const;

const SHORTAGE_OF: Readonly<Record<string, keyof typeof SHORTAGES>> = {
  ENOSPC: "disk_full",
  EDQUOT: "disk_full",
  EFBIG: "disk_full",
  ENOMEM: "host_full",
  EAGAIN: "host_full",
  EMFILE: "host_full",
  ENFILE: "host_full",
};

/** What the host ran out of, when that is at the bottom of an error: no bug, and nothing of the client's doing. */
function shortageOf(thrown: unknown): keyof typeof SHORTAGES | undefined {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    const shortage = SHORTAGE_OF[errnoOf(error) ?? ""];
    if (shortage !== undefined) return shortage;
  }
  return undefined;
}

export function toAnswer(error: AppError): ErrorAnswer {
  return {
    error: error.message,
    code: error.code,
    ...(error.details === undefined ? {} : { details: error.details }),
  };
}

function isFastifyError(thrown: unknown): thrown is FastifyError {
  return thrown instanceof Error && "statusCode" in thrown && typeof thrown.statusCode === "number";
}

function fromFastify(error: FastifyError): AppError {
  if (error.validation !== undefined) return fromValidation(error);
  if (error.statusCode === 413)
    return new AppError("body_too_large", "the body is larger than this call takes", { cause: error });
  if (error.statusCode === 415) {
    return new AppError(
      "unsupported_media_type",
      "the body must be JSON, with content-type: application/json",
      { cause: error },
    );
  }
  if (error.code === "FST_ERR_CTP_EMPTY_JSON_BODY")
    return new AppError("bad_json", "the body is empty", { cause: error });
  if (error instanceof SyntaxError || error.code === "FST_ERR_CTP_INVALID_JSON_BODY") {
    return new AppError("bad_json", `the body is not JSON: ${error.message}`, { cause: error });
  }
  if (error.statusCode !== undefined && error.statusCode < 500)
    return new AppError("bad_request", error.message, { cause: error });
  return new AppError("internal", "the daemon failed in a way it did not expect; its log has the details", {
    cause: error,
  });
}

/** Names the field that the first violation is about, and says what it must be. */
function fromValidation(error: FastifyError): AppError {
  const [first] = error.validation ?? [];
  if (first === undefined) return new AppError("bad_request", messageOf(error), { cause: error });
  const path = first.instancePath.split("/").slice(1);
  const { additionalProperty, missingProperty } = first.params as {
    additionalProperty?: string;
    missingProperty?: string;
  };
  const field = [
    ...path,
    ...[additionalProperty ?? missingProperty].filter((name) => name !== undefined),
  ].join(".");
  const where = field === "" ? (error.validationContext === "params" ? "the path" : "the body") : field;
  const what =
    additionalProperty !== undefined
      ? "is not a field of this call"
      : missingProperty !== undefined
        ? "is missing"
        : (first.message ?? "is not valid");
  return new AppError("bad_request", `${where} ${what}`, {
    details: field === "" ? {} : { field },
    cause: error,
  });
}
