import { osErrorDebug, osErrorText } from "../shared/os-error.ts";

/** A refusal of the jailer: the sentence it prints, and the debug form that follows after `Error:`. */
export class JailerError extends Error {
  readonly debug: string;

  constructor(message: string, debug: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "JailerError";
    this.debug = debug;
  }
}

/** Wraps a system call's error: `describe` gets its text, `variant` names the error in the debug form. */
export function jailerOsError(
  cause: unknown,
  describe: (text: string) => string,
  variant: (debug: string) => string,
): JailerError {
  return new JailerError(describe(osErrorText(cause)), variant(osErrorDebug(cause)), { cause });
}

/** An error about one path, e.g. `Failed to open file /x: Permission denied (os error 13)`. */
export function pathError(
  variant: string,
  what: string,
  path: string,
  cause: unknown,
  join = ": ",
): JailerError {
  return jailerOsError(
    cause,
    (text) => `${what} ${path}${join}${text}`,
    (debug) => `${variant}(${JSON.stringify(path)}, ${debug})`,
  );
}
