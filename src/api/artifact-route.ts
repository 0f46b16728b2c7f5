import type { FastifyReply, FastifyRequest } from "fastify";
import { finished } from "node:stream";
import type { Readable } from "node:stream";
import { Type } from "typebox";
import { AppError } from "../contract/errors.ts";
import { IdSchema, snapshotId } from "../contract/ids.ts";
import type { Host } from "../host/host.ts";
import { type App, errors, Nothing } from "./app.ts";
import { namesEtag, rangeHolds, wantedBytes } from "./byte-range.ts";

type Artifact = Awaited<ReturnType<Host["openArtifact"]>>;

const ArtifactPath = Type.Object({
  id: IdSchema,
  artifact_id: Type.String({ minLength: 1, maxLength: 256 }),
});

const bytes = (description: string) => ({
  description,
  content: {
    "application/octet-stream": { schema: Type.Unsafe<Readable>(Type.String({ format: "binary" })) },
  },
});

/** Files of snapshots, streamed from the disk to the socket at the client's pace. */
export function addArtifactRoute(app: App, host: Host): void {
  app.route({
    method: ["GET", "HEAD"],
    url: "/snapshots/:id/artifacts/:artifact_id",
    schema: {
      summary: "One file of a snapshot, whole or a range of its bytes; the ETag is its SHA-256",
      params: ArtifactPath,
      response: {
        200: bytes("all of it"),
        206: bytes("one range of it"),
        304: Nothing,
        ...errors,
      },
    },
    handler: async (request, reply) => {
      const { id, artifact_id } = request.params;
      await using opened = new AsyncDisposableStack();
      const artifact = opened.use(await host.openArtifact(snapshotId(id), artifact_id));
      const stream = answer(request, reply, artifact);
      if (stream === undefined) return reply.send();
      // From here on the file is open for as long as the stream is, which a client that hangs up ends, too.
      const rest = opened.move();
      finished(stream, { writable: false }, () => {
        rest
          .disposeAsync()
          .catch((error: unknown) => request.log.warn({ err: error }, "an artifact stays open"));
      });
      return reply.send(stream);
    },
  });
}

/** Sets status and headers. Returns the bytes to send, if any are. Throws `range_not_satisfiable`. */
function answer(request: FastifyRequest, reply: FastifyReply, artifact: Artifact): Readable | undefined {
  const { size_bytes: size, sha256_hex } = artifact;
  const { range, "if-range": ifRange, "if-none-match": ifNoneMatch } = request.headers;
  const etag = `"${sha256_hex}"`;
  void reply.headers({ etag, "accept-ranges": "bytes" });
  if (namesEtag(ifNoneMatch, etag)) {
    void reply.code(304);
    return undefined;
  }
  const isHead = request.method === "HEAD";
  // A range says something of GET alone.
  const wanted =
    isHead || !rangeHolds(headerText(ifRange), etag) ? "whole" : wantedBytes(headerText(range), size);
  if (wanted === "unsatisfiable") {
    void reply.header("content-range", `bytes */${size}`);
    throw new AppError(
      "range_not_satisfiable",
      `the artifact has ${size} bytes, and none of them are in the range`,
      {
        details: { size_bytes: size },
      },
    );
  }
  const { start, end } = wanted === "whole" ? { start: 0, end: size } : wanted;
  void reply.headers({ "content-type": "application/octet-stream", "content-length": end - start });
  if (wanted !== "whole") void reply.code(206).header("content-range", `bytes ${start}-${end - 1}/${size}`);
  return isHead ? undefined : artifact.stream(start, end);
}

/** A header that a client sent twice is joined, as Node joins most of those that have no list of their own. */
function headerText(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header.join(", ") : header;
}
