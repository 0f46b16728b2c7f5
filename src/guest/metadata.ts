import { SEED_PATHS } from "./seed.ts";
import { seedFiles, seedText } from "./seed-files.ts";

/** Firecracker's store takes strings and objects alone for the plain format that guests list by path. */
type Tree = { readonly [name: string]: string | Tree };

/**
 * What a guest's metadata service says of it, from the bytes of its seed: who it is and who may log in, in EC2's
 * layout, which images know how to ask for. No private key and no token: any process of the guest may ask.
 * Throws a TypeError when the bytes are no seed.
 */
export async function metadataOf(seed: Uint8Array): Promise<object> {
  const files = await seedFiles(seed);
  const text = (path: string): string => seedText(files, path);
  const hostname = text(SEED_PATHS.hostname);
  const machineId = text(SEED_PATHS.machineId);
  const daemonKey = text(SEED_PATHS.daemonKey);
  const keys = [...files]
    .filter(([path]) => path.endsWith(SEED_PATHS.authorizedKeys))
    .flatMap(([, content]) => linesOf(content))
    // The daemon's own way in is no key of a user.
    .filter((line) => line !== daemonKey);
  return {
    latest: {
      "meta-data": {
        // A new identity is a new instance, whatever the disk has seen before: cloud-init goes by it.
        "instance-id": machineId,
        "machine-id": machineId,
        hostname,
        "local-hostname": hostname,
        "ssh-host-public-key": text(SEED_PATHS.hostKey).split(" ").slice(0, 2).join(" "),
        "public-keys": numbered(keys, (line) => ({ "openssh-key": line })),
        "trusted-user-ca-keys": numbered(linesOf(text(SEED_PATHS.userCas)), (line) => line),
        resolvers: numbered(resolversIn(text(SEED_PATHS.resolvers)), (line) => line),
      },
    },
  } satisfies Tree;
}

function linesOf(text: string): string[] {
  return text.split("\n").filter((line) => line.trim() !== "");
}

function resolversIn(text: string): string[] {
  return linesOf(text).flatMap((line) => /^nameserver (\S+)$/.exec(line)?.[1] ?? []);
}

function numbered(lines: readonly string[], value: (line: string) => string | Tree): Tree {
  return Object.fromEntries(lines.map((line, index) => [String(index), value(line)]));
}
