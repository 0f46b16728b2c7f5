import { machine } from "node:os";
import { Type } from "typebox";
import { Compile } from "typebox/compile";
import { type Manifest, ManifestSchema } from "../model/manifest.ts";

const current = Compile(ManifestSchema);

/** What the first format had that this one has under another name. It knew disks only, and never left its host. */
const first = Compile(Type.Object({ format: Type.Literal(1), host_kernel: Type.Optional(Type.String()) }));

/** A manifest as this daemon knows it, or what is wrong with it. */
export type ParsedManifest = { readonly manifest: Manifest } | { readonly problem: string };

/** Reads the text of a snapshot's manifest, in its present format or the first one. */
export function parseManifest(text: string): ParsedManifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { problem: "it is not JSON" };
  }
  const converted = first.Check(value) ? fromFirst(value) : value;
  if (current.Check(converted)) {
    const { memory_kind, memory, vmstate } = converted;
    const whole = memory !== undefined && vmstate !== undefined;
    if (memory_kind !== "none" && !whole)
      return { problem: `it names no memory, but is of kind ${memory_kind}` };
    return { manifest: converted };
  }
  const [problem] = current.Errors(converted);
  if (problem === undefined) return { problem: "it is malformed" };
  return { problem: `${problem.instancePath.slice(1).replaceAll("/", ".")} ${problem.message}`.trim() };
}

/** Machines had these settings then, as far as anything depends on them. */
function fromFirst({ host_kernel, ...rest }: { readonly host_kernel?: string }): object {
  return {
    ready: "ssh",
    hardware: { io_engine: "Sync", pci: false, huge_pages: "None", smt: false, track_dirty_pages: false },
    ...rest,
    format: 2,
    memory_kind: "none",
    host: {
      kernel: host_kernel ?? "",
      architecture: machine(),
      cpu_vendor: "",
      cpu_model: "",
      cpu_flags: [],
    },
  };
}
