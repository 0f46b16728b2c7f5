import { type Finding, fail, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";
import { isKernelAtLeast } from "./kernel.ts";

const PARAMETERS = "/sys/module/kvm/parameters";

const KINDS = [
  { module: "kvm_intel", name: "Intel VT-x", nestedPaging: "ept" },
  { module: "kvm_amd", name: "AMD-V", nestedPaging: "npt" },
] as const;

/** The kernel's virtualization. `needed`: the VMM that was chosen runs no guest without it. */
export function kvmFindings(files: HostFiles, needed: boolean): Finding[] {
  if (!files.opens("/dev/kvm")) {
    const text = files.exists("/dev/kvm")
      ? "/dev/kvm may not be opened: be root, or look at its owner and mode"
      : "there is no /dev/kvm: turn virtualization on in the firmware and load kvm_intel or kvm_amd";
    return [needed ? fail("kvm", text) : warn("kvm", `${text}; without it guests run in emulation`)];
  }
  const kind = KINDS.find(({ module }) => files.exists(`/sys/module/${module}`));
  return [
    kind === undefined ? unusualKind(files) : usualKind(files, kind.name),
    ...(kind === undefined ? [] : [nestedPaging(files, kind)]),
    nxHugePages(files),
    timerPeriod(files),
  ];
}

function usualKind(files: HostFiles, name: string): Finding {
  if (/^flags\s*:.*\bhypervisor\b/m.test(files.text("/proc/cpuinfo") ?? "")) {
    return warn(
      "kvm",
      `/dev/kvm opens (${name}), but this host is itself a virtual machine: guests are slower, and no safer than the host below`,
    );
  }
  return ok("kvm", `/dev/kvm opens (${name})`);
}

function unusualKind(files: HostFiles): Finding {
  const module = files.list("/sys/module").find((name) => name.startsWith("kvm_"));
  return warn(
    "kvm",
    `/dev/kvm opens, but by ${module ?? "an unknown module"}, neither kvm_intel nor kvm_amd: whether Linux boots there shows only a try`,
  );
}

function nestedPaging(files: HostFiles, { module, nestedPaging: name }: (typeof KINDS)[number]): Finding {
  const value = files.text(`/sys/module/${module}/parameters/${name}`);
  if (value === "Y" || value === "1") return ok("nested paging", `${module}.${name} is on`);
  return warn(
    "nested paging",
    `${module}.${name} is not on: guests' memory is slow; reload ${module} with ${name}=1`,
  );
}

/** The guard against the iTLB multihit flaw costs each start of a VM time on some kernels, and is needed only where the flaw is. */
function nxHugePages(files: HostFiles): Finding {
  const value = files.text(`${PARAMETERS}/nx_huge_pages`) ?? "not there";
  const flaw = files.text("/sys/devices/system/cpu/vulnerabilities/itlb_multihit") ?? "unknown";
  const isOff = value === "N" || value === "never";
  if (flaw !== "Not affected") {
    return isOff
      ? warn(
          "nx huge pages",
          "off, and guests can halt this CPU (itlb_multihit): load kvm with nx_huge_pages=auto",
        )
      : ok("nx huge pages", `${value}: needed on this CPU (itlb_multihit)`);
  }
  // From 6.13 on the thread that this is about is made without moving it between cgroups.
  const costs = !isOff && isKernelAtLeast(files, 6, 0) && !isKernelAtLeast(files, 6, 13);
  if (!costs) return ok("nx huge pages", value);
  return warn(
    "nx huge pages",
    `${value}: not needed on this CPU, and slows starts of VMs; load kvm with nx_huge_pages=never`,
  );
}

/** How often a guest's timer may fire: the host pays for each time, outside of the guest's cgroup where a kvm-pit thread does it. */
function timerPeriod(files: HostFiles): Finding {
  const us = Number(files.text(`${PARAMETERS}/min_timer_period_us`) ?? Number.NaN);
  if (Number.isNaN(us)) return warn("timer period", "the kernel does not tell kvm.min_timer_period_us");
  if (us < 200)
    return warn(
      "timer period",
      `guests may let timers fire every ${us} µs at the host's cost: load kvm with min_timer_period_us=200 or more`,
    );
  return ok("timer period", `guests' timers fire every ${us} µs at most (kvm.min_timer_period_us)`);
}
