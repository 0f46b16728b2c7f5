import { expectDone } from "./api.ts";
import type { TinyGuestMode } from "./tiny-guest.ts";
import { Vmm } from "./vmm.ts";
import type { WorkDir } from "./workdir.ts";

export interface Files {
  state: string;
  memory: string;
}

export function filesIn(dir: WorkDir, name = "vm"): Files {
  return { state: dir.file(`${name}.state`), memory: dir.file(`${name}.memory`) };
}

/** The body that has `files` written. */
export function create(files: Files, type = "Full"): Record<string, string> {
  return { snapshot_type: type, snapshot_path: files.state, mem_file_path: files.memory };
}

/** The body that has `files` loaded; the guest runs on at once unless `more` says otherwise. */
export function load(files: Files, more: Record<string, unknown> = {}): Record<string, unknown> {
  const mem_backend = { backend_type: "File", backend_path: files.memory };
  return { snapshot_path: files.state, mem_backend, resume_vm: true, ...more };
}

export async function pause(vmm: Vmm): Promise<void> {
  expectDone(await vmm.call("PATCH", "/vm", { state: "Paused" }));
}

export async function resume(vmm: Vmm): Promise<void> {
  expectDone(await vmm.call("PATCH", "/vm", { state: "Resumed" }));
}

/** A snapshot of a guest that had counted to at least 3; the source is gone. Returns its last tick. */
export async function takeSnapshot(
  dir: WorkDir,
  mode: TinyGuestMode = "count",
): Promise<Files & { tick: number }> {
  const files = filesIn(dir);
  await using source = await Vmm.boot(mode, { dir, socketName: "source" });
  await source.console.waitForTick(3);
  await pause(source);
  expectDone(await source.call("PUT", "/snapshot/create", create(files)));
  return { ...files, tick: source.console.lastTick() };
}

/** A VMM that has loaded the snapshot, with its console in a file of its own. */
export async function restore(dir: WorkDir, socketName: string, body: Record<string, unknown>): Promise<Vmm> {
  const vmm = await Vmm.start({ dir, socketName });
  try {
    expectDone(await vmm.call("PUT", "/serial", { serial_out_path: vmm.consolePath }));
    expectDone(await vmm.call("PUT", "/snapshot/load", body));
  } catch (error) {
    await vmm[Symbol.asyncDispose]();
    throw error;
  }
  return vmm;
}
