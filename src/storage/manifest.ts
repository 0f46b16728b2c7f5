import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Static, Type } from "typebox";
import { Compile } from "typebox/compile";
import { AppError, errnoOf, messageOf } from "../contract/errors.ts";

const FileSchema = Type.Object({
  /** A plain name in the image's own folder: it can lead nowhere else. */
  file: Type.String({ pattern: "^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$" }),
  sha256: Type.String({ pattern: "^[0-9a-f]{64}$" }),
  size_bytes: Type.Integer({ minimum: 1 }),
});
export type ManifestFile = Static<typeof FileSchema>;

const ManifestSchema = Type.Object({
  format: Type.Literal(1),
  name: Type.String(),
  architecture: Type.Literal("x86_64"),
  default_user: Type.String({ pattern: "^[a-z_][a-z0-9_-]{0,31}$" }),
  kernel: FileSchema,
  kernel_elf: Type.Optional(FileSchema),
  modules: Type.Optional(FileSchema),
  rootfs: FileSchema,
});
export type ImageManifest = Static<typeof ManifestSchema>;

const InitrdManifestSchema = Type.Object({ format: Type.Literal(1), initrd: FileSchema });

const manifest = Compile(ManifestSchema);
const initrdManifest = Compile(InitrdManifestSchema);

/** Reads JSON that an operator or a build put there. Undefined when there is no such file. */
async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return undefined;
    throw new AppError("image_invalid", `${path} cannot be read: ${messageOf(error)}.`, { cause: error });
  }
}

function problemIn(errors: readonly { instancePath: string; message: string }[]): string {
  const [first] = errors;
  return first === undefined
    ? "it is malformed"
    : `${first.instancePath.slice(1).replaceAll("/", ".")} ${first.message}`;
}

/** The manifest of the image `name`. Throws `image_not_found` when there is none, `image_invalid` when it cannot be used. */
export async function readManifest(imageDir: string, name: string): Promise<ImageManifest> {
  const path = join(imageDir, name, "manifest.json");
  const value = await readJson(path);
  if (value === undefined) {
    throw new AppError(
      "image_not_found",
      `There is no image ${name} in ${imageDir}. Build the images with "make images", or name another.`,
      { details: { image: name, image_dir: imageDir } },
    );
  }
  if (!manifest.Check(value)) {
    throw new AppError(
      "image_invalid",
      `${path} is not a manifest of an image: ${problemIn(manifest.Errors(value))}.`,
    );
  }
  return value;
}

/** The description of the initrd that all images share. Throws as `readManifest` does. */
export async function readInitrdManifest(imageDir: string): Promise<ManifestFile> {
  const path = join(imageDir, "initrd.json");
  const value = await readJson(path);
  if (value === undefined) {
    throw new AppError("image_not_found", `There is no initrd in ${imageDir}. Build it with "make images".`, {
      details: { image_dir: imageDir },
    });
  }
  if (!initrdManifest.Check(value)) {
    throw new AppError(
      "image_invalid",
      `${path} does not describe an initrd: ${problemIn(initrdManifest.Errors(value))}.`,
    );
  }
  return value.initrd;
}
