import { createServer } from "node:http";

/**
 * Stands for a login webhook inside a slot: prints each request as a line of JSON, answers a request only after the
 * milliseconds that its argument says. Ends with its standard input.
 */
const answerAfterMs = Number(process.argv[2]);

const server = createServer((request, response) => {
  let body = "";
  request.setEncoding("utf8").on("data", (text: string) => {
    body += text;
  });
  request.on("end", () => {
    const { method, url, headers } = request;
    process.stdout.write(
      `${JSON.stringify({ method, url, authorization: headers.authorization, type: headers["content-type"], body })}\n`,
    );
    setTimeout(() => response.end(), answerAfterMs);
  });
});
server.listen(8080, "172.16.0.1", () => process.stdout.write(`${JSON.stringify({ listening: true })}\n`));
process.stdin.resume().on("end", () => process.exit(0));
