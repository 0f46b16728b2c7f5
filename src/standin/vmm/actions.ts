/** What a request can ask for, and what comes with it. */
import type * as bodies from "./bodies.ts";

export interface ActionPayloads {
  readonly "get-instance-info": undefined;
  readonly "get-version": undefined;
  readonly "get-vm-config": undefined;
  readonly "get-machine-config": undefined;
  readonly "get-mmds": undefined;
  readonly "get-balloon": undefined;
  readonly "get-balloon-statistics": undefined;
  readonly start: undefined;
  readonly "send-ctrl-alt-del": undefined;
  readonly "flush-metrics": undefined;
  readonly pause: undefined;
  readonly resume: undefined;
  readonly "configure-boot-source": bodies.BootSource;
  readonly "update-machine-config": bodies.MachineConfigUpdate;
  readonly "insert-drive": bodies.Drive;
  readonly "update-drive": bodies.DriveUpdate;
  readonly "insert-network-interface": bodies.NetworkInterface;
  readonly "update-network-interface": bodies.NetworkInterfaceUpdate;
  readonly unplug: undefined;
  readonly "set-entropy": bodies.Entropy;
  readonly "set-balloon": bodies.Balloon;
  /** The target in MiB. */
  readonly "update-balloon": number;
  /** The interval in seconds. */
  readonly "update-balloon-statistics": number;
  readonly "configure-serial": bodies.Serial;
  readonly "configure-logger": bodies.LoggerConfig;
  /** The path of the file. */
  readonly "configure-metrics": string;
  readonly "put-mmds": unknown;
  readonly "patch-mmds": unknown;
  readonly "set-mmds-config": bodies.MmdsConfig;
  readonly "create-snapshot": bodies.SnapshotCreate;
  readonly "load-snapshot": bodies.SnapshotLoad;
  /** A device that only the real program has, and the words that refuse it before the boot. */
  readonly "set-other-device": string;
  /** Something that such a device would do or tell when the VM runs. */
  readonly "other-device": undefined;
}

type Name = keyof ActionPayloads;

/** One request's wish. `isDeprecated` puts a header on the answer. */
export interface Action {
  readonly name: Name;
  readonly payload: ActionPayloads[Name];
  readonly isDeprecated: boolean;
}

export function act<N extends Name>(name: N, payload: ActionPayloads[N], isDeprecated = false): Action {
  return { name, payload, isDeprecated };
}

/** What a state of the VM does about the actions it allows. Each returns the value of the answer, undefined for none. */
export type Handlers = {
  readonly [N in Name]?: (payload: ActionPayloads[N]) => unknown;
};

/** The handler of one action, bound to what came with it; undefined if the state doesn't allow it. */
export function handlerOf(handlers: Handlers, action: Action): (() => unknown) | undefined {
  // Names and payloads belong together by construction: `act` is the only way to make an action.
  const handler = handlers[action.name] as ((payload: unknown) => unknown) | undefined;
  return handler === undefined ? undefined : () => handler(action.payload);
}
