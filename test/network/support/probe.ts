/** One probe, a program of its own: `probe.ts patience_ms kind address port [from] [text]`. Prints what came back, or nothing. */
import { createSocket } from "node:dgram";
import { connect } from "node:net";

const [patienceMs = "", kind = "", address = "", portText = "", from = "", text = "hello"] =
  process.argv.slice(2);
const port = Number(portText);

function question(): Buffer {
  const header = Buffer.from([0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  const name = Buffer.from([4, ...Buffer.from("host"), 4, ...Buffer.from("test"), 0, 0, 1, 0, 1]);
  return Buffer.concat([header, name]);
}

function finish(heard: string): void {
  process.stdout.write(heard, () => process.exit(0));
}

/** The address in the answer's one record, so that a test sees a real answer and not just bytes. */
function addressIn(answer: Buffer): string {
  return answer.subarray(-4).join(".");
}

setTimeout(() => finish(""), Number(patienceMs));
if (kind === "tcp" || kind === "dns-tcp") {
  const socket = connect({ host: address, port, ...(from === "" ? {} : { localAddress: from }) });
  socket.on("error", () => finish(""));
  if (kind === "dns-tcp") {
    const asked = question();
    socket.write(Buffer.concat([Buffer.from([0, asked.length]), asked]));
  }
  socket.once("data", (data: Buffer) => finish(kind === "tcp" ? data.toString().trim() : addressIn(data)));
} else {
  const socket = createSocket("udp4");
  socket.on("error", () => finish(""));
  socket.on("message", (message) => finish(kind === "dns-udp" ? addressIn(message) : message.toString()));
  socket.bind({ address: from === "" ? "0.0.0.0" : from }, () => {
    socket.send(kind === "dns-udp" ? question() : text, port, address);
  });
}
