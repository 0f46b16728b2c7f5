import { request as httpRequest } from "node:http";

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  // The answers are what the tests examine, field by field.
  // oxlint-disable-next-line typescript/no-explicit-any
  readonly body: any;
}

/** One request over a Unix socket, as any client would make it. */
export function request(
  socketPath: string,
  method: string,
  path: string,
  body?: object,
  signal?: AbortSignal,
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const call = httpRequest(
    {
      socketPath,
      method,
      path,
      ...(signal === undefined ? {} : { signal }),
      headers:
        payload === undefined
          ? {}
          : { "content-type": "application/json", "content-length": Buffer.byteLength(payload) },
    },
    (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: text === "" ? undefined : JSON.parse(text),
        }),
      );
      response.on("error", reject);
    },
  );
  call.on("error", reject);
  call.end(payload);
  return promise;
}
