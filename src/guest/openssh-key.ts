import { createPrivateKey, type KeyObject, randomBytes } from "node:crypto";

/** An ed25519 key in OpenSSH's formats. */
export interface SshKey {
  /** `-----BEGIN OPENSSH PRIVATE KEY-----` and so on, with a newline at the end. */
  readonly private_key: string;
  /** `ssh-ed25519 AAAA… comment`, without a newline. */
  readonly public_key: string;
}

const ALGORITHM = "ssh-ed25519";
const MAGIC = Buffer.from("openssh-key-v1\0", "latin1");
/** OpenSSH pads the private part to the cipher's block, which is 8 bytes where there is no cipher. */
const BLOCK_BYTES = 8;

/** An ed25519 private key in OpenSSH's formats (PROTOCOL.key in OpenSSH's source describes the private one). */
export function encodeSshKey(privateKey: KeyObject, comment: string, check: Buffer = randomBytes(4)): SshKey {
  const { d, x } = privateKey.export({ format: "jwk" });
  if (privateKey.asymmetricKeyType !== "ed25519" || d === undefined || x === undefined) {
    throw new TypeError("not an ed25519 private key");
  }
  const secret = Buffer.from(d, "base64url");
  const point = Buffer.from(x, "base64url");
  const publicBlob = Buffer.concat([field(ALGORITHM), field(point)]);
  // `check` is there twice: whoever decrypts the part knows by it that the passphrase was right.
  const body = Buffer.concat([
    check,
    check,
    publicBlob,
    field(Buffer.concat([secret, point])),
    field(comment),
  ]);
  const padding = Buffer.from(
    Array.from(
      { length: (BLOCK_BYTES - (body.length % BLOCK_BYTES)) % BLOCK_BYTES },
      (_, index) => index + 1,
    ),
  );
  const blob = Buffer.concat([
    MAGIC,
    field("none"),
    field("none"),
    field(""),
    Buffer.from([0, 0, 0, 1]),
    field(publicBlob),
    field(Buffer.concat([body, padding])),
  ]);
  const lines = blob.toString("base64").match(/.{1,70}/g) ?? [];
  return {
    private_key: `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines.join("\n")}\n-----END OPENSSH PRIVATE KEY-----\n`,
    public_key: `${ALGORITHM} ${publicBlob.toString("base64")} ${comment}`,
  };
}

/** Reads back what `encodeSshKey` wrote. Throws a TypeError when anything in it does not fit together. */
export function decodeSshKey(text: string): SshKey {
  const { secret, comment, check } = fieldsOf(text);
  const key = encodeSshKey(privateKeyOf(secret), comment, check);
  // Whatever the fields did not show, such as a public half of another key.
  if (key.private_key !== text) throw new TypeError("its fields contradict each other");
  return key;
}

/** The 32 bytes of an ed25519 key that all the rest follows from. */
export function secretOf(key: SshKey): Buffer {
  return fieldsOf(key.private_key).secret;
}

/** The ed25519 key that follows from these 32 bytes. */
export function privateKeyOf(secret: Buffer): KeyObject {
  // PKCS #8 (RFC 8410) is the form that Node takes without the public half.
  const der = Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), secret]);
  return createPrivateKey({ key: der, format: "der", type: "pkcs8" });
}

function fieldsOf(text: string): { secret: Buffer; comment: string; check: Buffer } {
  const body =
    /^-----BEGIN OPENSSH PRIVATE KEY-----\n([A-Za-z0-9+/=\n]+)-----END OPENSSH PRIVATE KEY-----\n$/.exec(
      text,
    )?.[1];
  if (body === undefined) throw new TypeError("not an OpenSSH private key");
  const reader = new FieldReader(Buffer.from(body, "base64"));
  reader.bytes(MAGIC.length);
  if (reader.field().toString() !== "none") throw new TypeError("the key is encrypted");
  reader.field();
  reader.field();
  reader.bytes(4);
  reader.field();
  const inner = new FieldReader(reader.field());
  const check = inner.bytes(4);
  inner.bytes(4);
  if (inner.field().toString() !== ALGORITHM) throw new TypeError(`not an ${ALGORITHM} key`);
  inner.field();
  const pair = inner.field();
  if (pair.length !== 64) throw new TypeError(`not an ${ALGORITHM} key`);
  return { secret: pair.subarray(0, 32), comment: inner.field().toString(), check };
}

/** The wire form of an OpenSSH public key line's key. Throws when the line holds no ed25519 key. */
export function publicKeyBlob(line: string): Buffer {
  const [algorithm, encoded = ""] = line.trim().split(/\s+/);
  const blob = Buffer.from(encoded, "base64");
  const head = field(ALGORITHM);
  const whole = blob.length === head.length + 4 + 32 && blob.subarray(0, head.length).equals(head);
  if (algorithm !== ALGORITHM || !whole) throw new TypeError(`not an ${ALGORITHM} public key: ${line}`);
  return blob;
}

/** A string of SSH's wire format: its length in four bytes, then its bytes. */
function field(content: string | Buffer): Buffer {
  const bytes = typeof content === "string" ? Buffer.from(content) : content;
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

class FieldReader {
  readonly #buffer: Buffer;
  #offset = 0;

  constructor(buffer: Buffer) {
    this.#buffer = buffer;
  }

  bytes(length: number): Buffer {
    const end = this.#offset + length;
    if (end > this.#buffer.length) throw new TypeError("the key ends too early");
    const bytes = this.#buffer.subarray(this.#offset, end);
    this.#offset = end;
    return bytes;
  }

  field(): Buffer {
    return this.bytes(this.bytes(4).readUInt32BE());
  }
}
