import type { ComputerHostClient } from "../client/client.ts";
import type { CliIo } from "./io.ts";

/** What the commands share. */
export interface CliContext {
  readonly io: CliIo;
  /** True when answers are printed as JSON. */
  readonly json: () => boolean;
  /** Runs `action` with a client of the daemon and closes it again. */
  withClient(action: (client: ComputerHostClient) => Promise<void>): Promise<void>;
}

/** An answer of the contract, as it came. */
export function toJson(answer: object): string {
  return JSON.stringify(answer, null, 2);
}
