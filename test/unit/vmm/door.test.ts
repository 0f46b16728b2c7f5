import type { LaunchSpec } from "../../../src/vmm/types.ts";
import { vmmsContract } from "../../support/contracts/vmms.ts";
import { FakeVmms } from "../../support/fakes/vmms.ts";
import { HARDWARE, stubRoom, thawing } from "../../support/stub-vmm/room.ts";

vmmsContract("fake", async () => {
  const vmms = new FakeVmms();
  let targets = 0;
  const spec = (): Promise<LaunchSpec> =>
    Promise.resolve({
      jail_id: vmms.newJailId(),
      uid: 200_000,
      gid: 200_000,
      netns_path: "/run/netns/fake",
      files: [
        { source: "/fake/log", path: "/log" },
        { source: "/fake/metrics", path: "/metrics" },
      ],
      log_path: "/log",
      metrics_path: "/metrics",
      limits: { fsize_bytes: 1, no_file: 1, memory_bytes: 1, cpus: 1, pids: 1 },
      pci: false,
    });
  return {
    vmms,
    hardware: HARDWARE,
    spec,
    target: (base) => {
      targets += 1;
      const kind = base === undefined ? "full" : "diff";
      return Promise.resolve({ kind, state: `/fake/${targets}.state`, memory: `/fake/${targets}.memory` });
    },
    thaw: async (saved) => thawing(await spec(), saved),
    restart: () => Promise.resolve(new FakeVmms(vmms.jails)),
    die: (vmm) => vmms.jails.get(vmm.ref.jail_id)?.die(),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
});

vmmsContract(
  "stub pair",
  async () => {
    const room = await stubRoom();
    return {
      vmms: room.vmms,
      hardware: HARDWARE,
      spec: async () => await room.spec("ctrl-alt-del ends\n"),
      target: async (base) => await room.target(base),
      thaw: async (saved) => thawing(await room.spec(), saved),
      restart: async () => await room.restart(),
      die: (vmm) => process.kill(vmm.ref.process.pid, "SIGKILL"),
      [Symbol.asyncDispose]: async () => await room[Symbol.asyncDispose](),
    };
  },
  process.getuid?.() === 0 ? false : "needs root: a jail is made of namespaces",
);
