/** What the command line reads and writes, as a port: tests bring their own. */
export interface CliIo {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** One line, or several, for standard output. */
  out(text: string): void;
  /** The same for standard error. */
  err(text: string): void;
}

export const processIo: CliIo = {
  environment: process.env,
  out: (text) => void process.stdout.write(`${text}\n`),
  err: (text) => void process.stderr.write(`${text}\n`),
};

/** How a run ends; `ssh` ends with the code of the command in the guest instead. */
export const EXIT = { done: 0, failed: 1, usage: 2 } as const;
