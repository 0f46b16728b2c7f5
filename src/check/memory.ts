import { type Finding, ok, warn } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

/** Where guests' memory may end up, and what it is made of. */
export function memoryFindings(files: HostFiles): Finding[] {
  return [swap(files), ksm(files), hugePages(files), transparentHugePages(files)];
}

function swap(files: HostFiles): Finding {
  const [, ...lines] = (files.text("/proc/swaps") ?? "").split("\n");
  // Compressed swap in memory reaches no disk.
  const places = lines
    .map((line) => line.split(/\s/)[0] ?? "")
    .filter((name) => name !== "" && !name.startsWith("/dev/zram"));
  if (places.length === 0) return ok("swap", "none on a disk");
  return warn(
    "swap",
    `guests' memory may be written to ${places.join(", ")}: swapoff -a and remove it from /etc/fstab, or encrypt it`,
  );
}

function ksm(files: HostFiles): Finding {
  if (files.text("/sys/kernel/mm/ksm/run") !== "1") return ok("ksm", "off: no pages are merged");
  return warn(
    "ksm",
    "on: merged pages tell guests what others hold in memory; write 2 to /sys/kernel/mm/ksm/run and stop ksmtuned",
  );
}

function hugePages(files: HostFiles): Finding {
  const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB";
  const total = Number(files.text(`${pool}/nr_hugepages`) ?? 0);
  if (total === 0)
    return ok(
      "huge pages",
      'none are set aside: creates with huge_pages "2M" will fail (vm.nr_hugepages sets some aside)',
    );
  return ok(
    "huge pages",
    `${files.text(`${pool}/free_hugepages`) ?? "?"} of ${total} pages of 2 MiB are free`,
  );
}

function transparentHugePages(files: HostFiles): Finding {
  const setting = files.text("/sys/kernel/mm/transparent_hugepage/enabled");
  const chosen = /\[(\w+)\]/.exec(setting ?? "")?.[1];
  if (chosen === undefined) return ok("thp", "the kernel has no transparent huge pages");
  return ok("thp", chosen === "never" ? "never: guests with much memory are slower" : chosen);
}
