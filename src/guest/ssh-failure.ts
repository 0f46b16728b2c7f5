/** Why there is no connection: what was seen, in the order in which a booting guest shows it. */
export type SshFailureKind = "unreachable" | "closed" | "timeout" | "other_host_key" | "login_refused";

export class SshFailure extends Error {
  readonly kind: SshFailureKind;

  constructor(kind: SshFailureKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SshFailure";
    this.kind = kind;
  }
}
