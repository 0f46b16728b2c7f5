import { AppError } from "../contract/errors.ts";
import { filePathOf } from "./file-url.ts";

/**
 * A URL that a client named, as one that this daemon talks to: http, https, or a file below one of `fileUrlDirs`.
 * Throws `artifact_refused`.
 */
export function checkedUrl(text: string, fileUrlDirs: readonly string[]): URL {
  const url = URL.parse(text);
  if (url === null)
    throw new AppError("artifact_refused", `${JSON.stringify(withoutQuery(text))} is not a URL.`);
  switch (url.protocol) {
    case "file:":
      filePathOf(url, fileUrlDirs);
      return url;
    case "http:":
    case "https:":
      if (url.username === "" && url.password === "") return url;
      throw new AppError("artifact_refused", "A URL with a user name or password in it is not used.");
    default:
      throw new AppError(
        "artifact_refused",
        `Artifacts are fetched from http, https and file URLs, not ${url.protocol}`,
      );
  }
}

/** What a URL is called in errors and logs: its query may carry somebody's signature. */
export function withoutQuery(url: string): string {
  return url.replace(/[?#].*$/s, "");
}
