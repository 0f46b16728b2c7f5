/** A request that is refused: the status and the `fault_message` of Firecracker's answer. */
export class Fault extends Error {
  readonly status: 400 | 413;

  constructor(message: string, options?: ErrorOptions & { readonly status?: 400 | 413 }) {
    super(message, options);
    this.name = "Fault";
    this.status = options?.status ?? 400;
  }
}

export const NOT_BEFORE_BOOT = "The requested operation is not supported before starting the microVM.";
export const NOT_AFTER_BOOT = "The requested operation is not supported after starting the microVM.";

/** The words for a device that is not there. */
export function noDevice(what: string, after = ""): Fault {
  return new Fault(`${what}: Failed perform action on device: Device not found${after}`);
}
