import assert from "node:assert/strict";
import { lstatSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { SocketPlace } from "../../../src/api/socket-place.ts";

/** A server that answers at a socket of its own. */
async function serving() {
  const folder = mkdtempSync(join(tmpdir(), "socket-place-"));
  const path = join(folder, "api.sock");
  const server = createServer((_request, response) => response.end("served"));
  const place = new SocketPlace(server, path, undefined, () => {});
  await place.listen();
  return {
    place,
    path,
    [Symbol.asyncDispose]: async () => {
      place.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function ask(socketPath: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  request({ socketPath, path: "/", agent: false }, (response) => {
    response.setEncoding("utf8").once("data", resolve);
  })
    .once("error", reject)
    .end();
  return await promise;
}

test("a socket whose file is removed listens again at the same path, with the same mode", async () => {
  await using served = await serving();
  const { place, path } = served;
  assert.deepEqual(
    place.inventory().map(({ status }) => status),
    ["ok"],
  );
  for (let time = 0; time < 2; time += 1) {
    rmSync(path);
    await assert.rejects(ask(path));
    const items = place.inventory();
    assert.deepEqual(
      items.map(({ status }) => status),
      ["missing"],
    );
    assert.deepEqual(
      (await place.mend(items)).map(({ ok }) => ok),
      [true],
    );
    assert.equal(await ask(path), "served");
    assert.equal(lstatSync(path).mode & 0o777, 0o660);
    assert.deepEqual(
      place.inventory().map(({ status }) => status),
      ["ok"],
    );
  }
});

test("what somebody put in its place is named and left alone", async () => {
  await using served = await serving();
  const { place, path } = served;
  rmSync(path);
  writeFileSync(path, "mine");
  const items = place.inventory();
  assert.deepEqual(
    items.map(({ status }) => status),
    ["altered"],
  );
  const [mended] = await place.mend(items);
  assert.equal(mended?.ok, false);
  assert.match(mended?.reason ?? "", /is not a socket/);
  assert.ok(lstatSync(path).isFile());
});

test("items of others are not its own to mend", async () => {
  await using served = await serving();
  const link = { resource: "link", name: "x", holder: { of: "daemon" }, status: "missing" } as const;
  assert.deepEqual(await served.place.mend([link]), []);
});
