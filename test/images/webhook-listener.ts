import { createServer } from "node:http";

/**
 * Stands for a login webhook inside a slot: prints each request as a line of JSON, and a line when a caller went
 * away. A first line on standard input lets it answer, what came before and what comes later; the end of standard
 * input ends it.
 */
const { promise: mayAnswer, resolve: answer } = Promise.withResolvers<void>();

const server = createServer((request, response) => {
  let body = "";
  request.socket.once("close", () => process.stdout.write(`${JSON.stringify({ gone: true })}\n`));
  request.setEncoding("utf8").on("data", (text: string) => {
    body += text;
  });
  request.on("end", () => {
    const { method, url, headers } = request;
    process.stdout.write(
      `${JSON.stringify({ method, url, authorization: headers.authorization, type: headers["content-type"], body })}\n`,
    );
    void mayAnswer.then(() => response.end());
  });
});
server.listen(8080, "172.16.0.1", () => process.stdout.write(`${JSON.stringify({ listening: true })}\n`));
process.stdin.once("data", () => answer()).on("end", () => process.exit(0));
