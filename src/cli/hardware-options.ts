import { type Command, InvalidArgumentError, Option } from "commander";
import type { HardwareOptions, RateLimiter, RateLimits, TokenBucket } from "../contract/machine.ts";
import { parseCount, parseDiskBytes } from "./sizes.ts";

/** What a create may say of the guest's hardware beside its size, as commander collects it. */
export interface HardwareFlags {
  readonly smt?: true;
  readonly trackDirtyPages?: true;
  readonly hugePages?: true;
  readonly cpuTemplate?: NonNullable<HardwareOptions["cpu_template"]>;
  readonly bootArgs?: string;
  readonly diskBandwidth?: number;
  readonly diskOps?: number;
  readonly rxBandwidth?: number;
  readonly txBandwidth?: number;
  readonly rateLimits?: RateLimits;
}

/** Adds the options for the guest's hardware. */
export function addHardwareOptions(command: Command): Command {
  return command
    .option("--smt", "let two vCPUs share a core")
    .option("--track-dirty-pages", "let snapshots of the memory be diffs")
    .option("--huge-pages", "take the memory from the host's huge pages of 2 MiB")
    .addOption(
      new Option("--cpu-template <name>", "a static CPU template of Firecracker's").choices([
        "C3",
        "T2",
        "T2S",
        "T2CL",
        "T2A",
        "V1N1",
      ] satisfies HardwareFlags["cpuTemplate"][]),
    )
    .option("--boot-args <arguments>", "arguments for the guest's kernel, behind the daemon's own")
    .option("--disk-bandwidth <size>", "most bytes a second from and to the disk", parseDiskBytes)
    .option("--disk-ops <count>", "most operations of the disk a second", parseCount)
    .option("--rx-bandwidth <size>", "most bytes a second that the guest receives", parseDiskBytes)
    .option("--tx-bandwidth <size>", "most bytes a second that the guest sends", parseDiskBytes)
    .addOption(
      new Option("--rate-limits <json>", "all rate limits as the API takes them, such as bursts")
        .argParser(parseObject)
        .conflicts(["diskBandwidth", "diskOps", "rxBandwidth", "txBandwidth"]),
    );
}

/** The flags in the contract's fields. */
export function hardwareBody(flags: HardwareFlags): HardwareOptions {
  const rate_limits = flags.rateLimits ?? rateLimits(flags);
  return {
    ...(flags.smt === undefined ? {} : { smt: true }),
    ...(flags.trackDirtyPages === undefined ? {} : { track_dirty_pages: true }),
    ...(flags.hugePages === undefined ? {} : { huge_pages: "2M" }),
    ...(flags.cpuTemplate === undefined ? {} : { cpu_template: flags.cpuTemplate }),
    ...(flags.bootArgs === undefined ? {} : { boot_args: flags.bootArgs }),
    ...(Object.keys(rate_limits).length === 0 ? {} : { rate_limits }),
  };
}

function rateLimits({ diskBandwidth, diskOps, rxBandwidth, txBandwidth }: HardwareFlags): RateLimits {
  const limiters = {
    disk: limiter(diskBandwidth, diskOps),
    network_rx: limiter(rxBandwidth),
    network_tx: limiter(txBandwidth),
  };
  return Object.fromEntries(Object.entries(limiters).filter(([, { bandwidth, ops }]) => bandwidth ?? ops));
}

function limiter(bandwidth: number | undefined, ops?: number): RateLimiter {
  return {
    ...(bandwidth === undefined ? {} : { bandwidth: perSecond(bandwidth) }),
    ...(ops === undefined ? {} : { ops: perSecond(ops) }),
  };
}

function perSecond(size: number): TokenBucket {
  return { size, refill_time_ms: 1000 };
}

/** What it holds is for the daemon to judge. */
function parseObject(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // Said below.
  }
  throw new InvalidArgumentError("Give a JSON object.");
}
