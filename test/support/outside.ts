/**
 * The servers of the playground's outside, a program of its own: it prints "ready" and ends with its standard input.
 * - TCP 25, 80, 443, 8080: each connection is answered at once by a JSON line `{peer, local, port}`, then echoed.
 * - UDP 7: answers each datagram by `{peer, local, port}`.
 * - TCP and UDP 53: a resolver that answers every question with one A record, 203.0.113.7.
 * - UDP 9: keeps what it hears; TCP 9 lists it as JSON lines `{peer, text}` and closes.
 */
import { createSocket, type RemoteInfo } from "node:dgram";
import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { networkInterfaces } from "node:os";

const heard: string[] = [];

const echoing = (socket: Socket): void => {
  socket.on("error", () => {});
  socket.write(
    `${JSON.stringify({ peer: socket.remoteAddress, local: socket.localAddress, port: socket.localPort })}\n`,
  );
  socket.pipe(socket);
};

/** The question sent back as an answer, with one A record for its name. */
function dnsAnswer(question: Buffer): Buffer {
  const header = Buffer.from(question.subarray(0, 12));
  header.writeUInt16BE(0x8180, 2);
  header.writeUInt16BE(1, 6);
  header.writeUInt32BE(0, 8);
  let end = 12;
  while (end < question.length && question[end] !== 0) end += (question[end] ?? 0) + 1;
  const asked = question.subarray(12, end + 5);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
  return Buffer.concat([header, asked, record]);
}

const dnsOverTcp = (socket: Socket): void => {
  socket.on("error", () => {});
  socket.on("data", (data: Buffer) => {
    const answer = dnsAnswer(data.subarray(2));
    const length = Buffer.alloc(2);
    length.writeUInt16BE(answer.length);
    socket.write(Buffer.concat([length, answer]));
  });
};

const listing = (socket: Socket): void => {
  socket.on("error", () => {});
  socket.end(heard.map((line) => `${line}\n`).join(""));
};

async function listen(handler: (socket: Socket) => void, port: number): Promise<Server> {
  const server = createServer(handler);
  server.listen(port, "0.0.0.0");
  await once(server, "listening");
  return server;
}

/** Bound to all addresses a UDP socket would answer from another one than it was asked at: the peer gives the way. */
async function hear(
  port: number,
  answer: (message: Buffer, peer: RemoteInfo) => Buffer | undefined,
): Promise<void> {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  for (const { address } of addresses.filter(({ family }) => family === "IPv4")) {
    const socket = createSocket("udp4");
    socket.on("error", () => {});
    socket.on("message", (message, peer) => {
      const reply = answer(message, peer);
      if (reply !== undefined) socket.send(reply, peer.port, peer.address);
    });
    socket.bind(port, address);
    await once(socket, "listening");
  }
}

for (const port of [25, 80, 443, 8080]) await listen(echoing, port);
await listen(dnsOverTcp, 53);
await listen(listing, 9);
await hear(7, (_message, peer) => Buffer.from(JSON.stringify({ peer: peer.address, port: peer.port })));
await hear(53, (message) => dnsAnswer(message));
await hear(9, (message, peer) => {
  heard.push(JSON.stringify({ peer: peer.address, text: message.toString() }));
  return undefined;
});
process.stdin.on("end", () => process.exit(0)).resume();
console.log("ready");
