import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect } from "node:net";
import { test } from "node:test";
import { pino } from "pino";
import { makeServer } from "../../../src/api/server.ts";
import { makeFakeHost } from "../../support/fake-host.ts";

/** What the API answers on a connection to these bytes, until it closes it. */
async function answerTo(bytes: string): Promise<string> {
  await using fakes = await makeFakeHost();
  const app = await makeServer(fakes.host, pino({ level: "silent" }));
  app.server.listen(0, "127.0.0.1");
  await once(app.server, "listening");
  try {
    const socket = connect((app.server.address() as AddressInfo).port, "127.0.0.1");
    let text = "";
    socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    socket.write(bytes);
    await once(socket, "close", { signal: AbortSignal.timeout(20_000) });
    return text;
  } finally {
    await app.close();
  }
}

const statuses = (text: string): number[] =>
  [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));

test("requests before bytes that are none are answered first, and in their order", async () => {
  const gets =
    "GET /machines/none HTTP/1.1\r\nhost: x\r\n\r\nGET /machines HTTP/1.1\r\nhost: x\r\n\r\n".repeat(10);
  const text = await answerTo(`${gets}GARBAGE\r\n\r\nDELETE /machines HTTP/1.1\r\nhost: x\r\n\r\n`);
  assert.deepEqual(statuses(text), [...Array.from({ length: 10 }, () => [404, 200]).flat(), 400]);
});

test("a request whose body breaks off is refused, though its head came whole", async () => {
  const text = await answerTo(
    "POST /machines HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
  );
  assert.deepEqual(statuses(text), [400]);
  assert.match(text, /"code":"bad_request"/);
});

test("an odd expectation and a missing host are let pass; a CONNECT is refused in the contract's words", async () => {
  const odd = await answerTo(
    "GET /machines HTTP/1.1\r\nhost: x\r\nexpect: a miracle\r\nconnection: close\r\n\r\n",
  );
  assert.deepEqual(statuses(odd), [200]);
  assert.deepEqual(statuses(await answerTo("GET /machines HTTP/1.1\r\nconnection: close\r\n\r\n")), [200]);
  const connected = await answerTo("CONNECT elsewhere:443 HTTP/1.1\r\nhost: x\r\n\r\n");
  assert.deepEqual(statuses(connected), [400]);
  assert.match(connected, /"code":"bad_request"/);
});
