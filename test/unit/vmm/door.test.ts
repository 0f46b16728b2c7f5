import { vmmsContract } from "../../support/contracts/vmms.ts";
import { FakeVmms } from "../../support/fakes/vmms.ts";
import { HARDWARE, stubRoom } from "../../support/stub-vmm/room.ts";

vmmsContract("fake", async () => {
  const vmms = new FakeVmms();
  return {
    vmms,
    hardware: HARDWARE,
    spec: () =>
      Promise.resolve({
        jail_id: vmms.newJailId(),
        uid: 200_000,
        gid: 200_000,
        netns_path: "/run/netns/fake",
        files: [{ source: "/fake/log", path: "/log" }],
        log_path: "/log",
        limits: { fsize_bytes: 1, no_file: 1 },
        cgroup: { memory_bytes: 1, cpus: 1, pids: 1 },
      }),
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
      restart: async () => await room.restart(),
      die: (vmm) => process.kill(vmm.ref.process.pid, "SIGKILL"),
      [Symbol.asyncDispose]: async () => await room[Symbol.asyncDispose](),
    };
  },
  process.getuid?.() === 0 ? false : "needs root: a jail is made of namespaces",
);
