import { spawn } from "node:child_process";

export interface RunOptions {
  /** Text for the child's standard input; without it stdin is /dev/null. */
  readonly input?: string;
  /** Wall-clock limit in milliseconds, then TERM, then KILL. Default 10,000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** Exit codes that are no error. Default `[0]`. */
  readonly okCodes?: readonly number[];
  readonly cwd?: string;
  /** Added to the minimal environment `PATH`, `LC_ALL=C`. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

const OUTPUT_LIMIT = 4 * 1024 * 1024;
const KILL_AFTER_MS = 1000;
/** How often, and how many times, an ended child's pipes are looked at before a process that it left is given up on. */
const PIPE_LOOK_MS = 500;
const PIPE_LOOKS = 4;

/** A subprocess that did not do what it should: what was run, how it ended and what it said. */
export class RunError extends Error {
  readonly argv: readonly string[];
  readonly code: number | null;
  readonly signal: string | null;
  readonly stderr: string;
  readonly timedOut: boolean;

  constructor(
    argv: readonly string[],
    how: { code: number | null; signal: string | null; stderr: string; timedOut: boolean; cause?: unknown },
  ) {
    const end = how.timedOut
      ? "timed out"
      : how.signal !== null
        ? `was ended by ${how.signal}`
        : how.code === null
          ? "could not be started"
          : `exited with ${how.code}`;
    const said = how.stderr.trim();
    super(
      `${argv.join(" ")} ${end}${said === "" ? "" : `: ${said}`}`,
      how.cause === undefined ? undefined : { cause: how.cause },
    );
    this.name = "RunError";
    this.argv = argv;
    this.code = how.code;
    this.signal = how.signal;
    this.stderr = how.stderr;
    this.timedOut = how.timedOut;
  }
}

/**
 * The one way to run a subprocess: an argv array, never a shell string; `LC_ALL=C`; a time limit.
 * Returns its output when the exit code is expected, throws `RunError` otherwise. A process that the child left with
 * its standard output or error holds nobody up: two seconds after the child's end, what was read by then counts.
 */
export function run(argv: readonly [string, ...string[]], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = 10_000, okCodes = [0] } = options;
  options.signal?.throwIfAborted();
  const started = performance.now();
  const { promise, resolve, reject } = Promise.withResolvers<RunResult>();
  const [file, ...args] = argv;
  const child = spawn(file, args, {
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    env: {
      PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      LC_ALL: "C",
      ...options.env,
    },
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  let stdout = "";
  let stderr = "";
  let timedOut = false;
  let killTimer: NodeJS.Timeout | undefined;
  let pipeTimer: NodeJS.Timeout | undefined;
  const end = (): void => {
    child.kill("SIGTERM");
    killTimer = setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS);
  };
  const timer = setTimeout(() => {
    timedOut = true;
    end();
  }, timeoutMs);
  options.signal?.addEventListener("abort", end, { once: true });
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    if (stdout.length < OUTPUT_LIMIT) stdout += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    if (stderr.length < OUTPUT_LIMIT) stderr += text;
  });
  // A child that exits before it read all of its input breaks the pipe: its exit code tells the story.
  child.stdin?.on("error", () => {});
  child.stdin?.end(options.input);
  const settled = (): void => {
    clearTimeout(timer);
    clearTimeout(killTimer);
    clearTimeout(pipeTimer);
    options.signal?.removeEventListener("abort", end);
  };
  child.once("error", (cause) => {
    settled();
    reject(new RunError(argv, { code: null, signal: null, stderr: cause.message, timedOut, cause }));
  });
  const ended = (code: number | null, signal: string | null): void => {
    settled();
    if (options.signal?.aborted === true) reject(options.signal.reason);
    // A child that ended well in spite of the limit did what it should: a busy event loop may hear of the limit first.
    else if (code !== null && okCodes.includes(code))
      resolve({ code, stdout, stderr, durationMs: performance.now() - started });
    else reject(new RunError(argv, { code, signal, stderr, timedOut }));
  };
  child.once("close", ended);
  child.once("exit", (code, signal) => {
    // More than one look, so that a busy event loop has read what was there before it gives up.
    const look = (left: number): void => {
      pipeTimer = setTimeout(() => {
        if (left > 1) return look(left - 1);
        child.stdout?.destroy();
        child.stderr?.destroy();
        ended(code, signal);
      }, PIPE_LOOK_MS);
    };
    look(PIPE_LOOKS);
  });
  return promise;
}
