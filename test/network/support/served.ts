/** What `serve` runs: `served.ts listener|echo-client address port`. Prints "ready", then what an echo client hears, or its error. */
import { connect, createServer } from "node:net";
import { createInterface } from "node:readline";

const [kind, address = "", port = ""] = process.argv.slice(2);
process.stdin.on("end", () => process.exit(0));
if (kind === "listener") {
  process.stdin.resume();
  createServer((socket) => {
    socket.on("error", () => {});
    socket.end(socket.remoteAddress ?? "");
  }).listen(Number(port), address, () => console.log("ready"));
} else {
  const socket = connect(Number(port), address);
  socket.on("error", ({ code }: NodeJS.ErrnoException) => {
    console.log(code);
    process.exit(1);
  });
  let greeted = false;
  // The server says who came first of all; from then on it sends back what it hears.
  for await (const line of mergeLines()) {
    if (line.from === "input") socket.write(`${line.text}\n`);
    else if (greeted) console.log(line.text);
    else {
      greeted = true;
      console.log("ready");
    }
  }

  async function* mergeLines(): AsyncGenerator<{ from: "input" | "server"; text: string }> {
    const queue: { from: "input" | "server"; text: string }[] = [];
    let wake = Promise.withResolvers<void>();
    const listen = (from: "input" | "server", stream: NodeJS.ReadableStream): void => {
      createInterface({ input: stream }).on("line", (text) => {
        queue.push({ from, text });
        wake.resolve();
      });
    };
    listen("input", process.stdin);
    listen("server", socket);
    for (;;) {
      await wake.promise;
      wake = Promise.withResolvers<void>();
      yield* queue.splice(0);
    }
  }
}
