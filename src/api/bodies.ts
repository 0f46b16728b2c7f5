import type { FastifyRequest } from "fastify";
import { AppError } from "../contract/errors.ts";
import type { App } from "./app.ts";

function takesBody(request: FastifyRequest): boolean {
  return request.routeOptions.schema?.body !== undefined;
}

/**
 * How bodies are read: JSON alone, and what is no JSON is refused as that. A call that takes no body is content with an
 * empty one (many clients say `content-type: application/json` with every request), and refuses fields that it would ignore.
 */
export function readBodies(app: App): void {
  app.removeContentTypeParser("text/plain");
  const parseJson = app.getDefaultJsonParser("error", "error");
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    if (body === "" && !takesBody(request)) done(null, undefined);
    else void parseJson(request, body.toString(), done);
  });
  app.addHook("preValidation", async (request) => {
    const { body } = request;
    if (takesBody(request) || body === undefined || body === null) return;
    const [field] = typeof body === "object" && !Array.isArray(body) ? Object.keys(body) : [""];
    if (field === undefined) return;
    throw new AppError(
      "bad_request",
      field === "" ? "this call takes no body" : `${field} is not a field of this call`,
      { details: field === "" ? {} : { field } },
    );
  });
}
