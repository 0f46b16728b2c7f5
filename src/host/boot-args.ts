import { AppError } from "../contract/errors.ts";

/** What the daemon and the VMM set on the kernel's command line, and whatever would take the seed or the console away. */
const OURS = new Set([
  "root",
  "init",
  "rdinit",
  "initrd",
  "initrdmem",
  "noinitrd",
  "console",
  "8250.nr_uarts",
  "reboot",
  "panic",
  "pci",
  "virtio_mmio.device",
]);
const OUR_MODULE = "computer_host.";

/**
 * Refuses (`bad_request`) arguments for the guest's kernel that are not the request's to give. They are looked at word by
 * word, also between quotes: the kernel takes quotes off, and the initrd reads words and knows no quotes at all.
 */
export function refuseBootArgs(text: string): void {
  if ((text.split('"').length - 1) % 2 === 1)
    throw refusal("boot_args has a quote that nothing closes: it would take in what stands behind it");
  for (const word of text.split(" ")) {
    // To the kernel, `-` and `_` are the same in a name.
    const [name = ""] = word.replaceAll('"', "").replaceAll("-", "_").split("=");
    if (name === "__") {
      throw refusal(
        "boot_args has a `--`, which hands what stands behind it to the guest's init: the VMM's own arguments come there",
      );
    }
    if (OURS.has(name) || name.startsWith(OUR_MODULE))
      throw refusal(`boot_args sets ${name}, which the daemon sets itself`, name);
  }
}

function refusal(sentence: string, argument?: string): AppError {
  return new AppError("bad_request", sentence, {
    details: { field: "boot_args", ...(argument === undefined ? {} : { argument }) },
  });
}
