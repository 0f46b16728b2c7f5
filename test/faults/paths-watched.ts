import assert from "node:assert/strict";
import { request as httpRequest } from "node:http";
import { buffer } from "node:stream/consumers";
import { run } from "../../src/system/run.ts";
import type { Answer } from "../support/request.ts";
import type { World } from "../support/world.ts";
import type { Canary } from "./paths-canary.ts";

/** Answers as they come, each looked through for the secret. */
export class Watched {
  readonly #world: World;
  readonly #canary: Canary;

  constructor(world: World, canary: Canary) {
    this.#world = world;
    this.#canary = canary;
  }

  async ask(
    method: "get" | "post" | "delete",
    path: string,
    body?: object,
    allowed: readonly (number | string)[] = [200, 201, 204],
  ): Promise<Answer> {
    const answer = await (method === "post" ? this.#world.post(path, body) : this.#world[method](path));
    const said = JSON.stringify(answer.body) ?? "";
    assert.ok(!said.includes(this.#canary.secret), `${method} ${path} tells the secret`);
    assert.ok(
      allowed.includes(answer.status) || allowed.includes(answer.body?.code),
      `${method} ${path}: ${answer.status} ${said}`,
    );
    return answer;
  }
}

/** Neither the daemon's folder nor its log holds the secret. */
export async function assertNotKept(world: World, canary: Canary): Promise<void> {
  const { stdout } = await run(["grep", "-rlsF", "-D", "skip", canary.secret, world.rootDir, world.logFile], {
    okCodes: [0, 1, 2],
    timeoutMs: 60_000,
  });
  assert.equal(stdout, "", "the secret was copied");
}

/** Bytes of a file of a snapshot, as a client gets them. */
export async function bytesOf(
  world: World,
  path: string,
): Promise<{ status: number; bytes: Buffer; etag: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{
    status: number;
    bytes: Buffer;
    etag: string;
  }>();
  httpRequest({ socketPath: world.socket, path, agent: false }, (response) => {
    buffer(response).then(
      (bytes) => resolve({ status: response.statusCode ?? 0, bytes, etag: response.headers.etag ?? "" }),
      reject,
    );
  })
    .on("error", reject)
    .end();
  return await promise;
}
