/**
 * A network room in a process of its own, so that it can stand in another network namespace and be killed.
 * Reads JSON lines `{id, call, args}` and answers `{id, value}` or `{id, error: {message, code?}}`; options are argv[2].
 * `acquire` with an argument is aborted after that many milliseconds.
 */
import { createInterface } from "node:readline";
import { AppError } from "../../../src/contract/errors.ts";
import { createNetwork, type NetworkOptions } from "../../../src/network/network.ts";
import type { HostItem } from "../../../src/model/inventory.ts";
import type { HeldSlot, Slot } from "../../../src/network/types.ts";

interface Call {
  readonly id: number;
  readonly call: string;
  readonly args: readonly unknown[];
}

const logged: string[] = [];
const note = (_fields: object, message: string): void => {
  logged.push(message);
};
const options = JSON.parse(process.argv[2] ?? "") as Omit<NetworkOptions, "log">;
const network = createNetwork({ ...options, log: { debug: note, info: note, warn: note, error: note } });

async function answer({ call, args }: Call): Promise<unknown> {
  const [first] = args;
  switch (call) {
    case "open":
      return network.open(first as number[], new Map(args[1] as [number, number][] | undefined));
    case "acquire":
      return network.acquire(typeof first === "number" ? AbortSignal.timeout(first) : undefined);
    case "openEgress":
      return network.openEgress(first as Slot);
    case "closeEgress":
      return network.closeEgress(first as Slot);
    case "release":
      return network.release(first as Slot);
    case "warnings":
      return network.warnings();
    case "resolvers":
      return network.resolvers;
    case "logged":
      return logged;
    case "inventory":
      return network.inventory(
        first as HeldSlot[],
        args[1] as number,
        (args[2] as "some" | undefined) ?? "all",
      );
    case "mend":
      return network.mend(first as HostItem[], args[1] as HeldSlot[], args[2] as number);
    case "close":
      return network.close();
    default:
      throw new Error(`there is no call ${call}`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line) as Call;
  answer(call).then(
    (value) => console.log(JSON.stringify({ id: call.id, value: value ?? null })),
    (error: unknown) =>
      console.log(
        JSON.stringify({
          id: call.id,
          error: {
            message: error instanceof Error ? error.message : String(error),
            code: error instanceof AppError ? error.code : undefined,
          },
        }),
      ),
  );
}
