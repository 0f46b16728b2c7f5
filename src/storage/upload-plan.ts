import { AppError } from "../contract/errors.ts";
import type { ArtifactKind, UploadSnapshot } from "../contract/snapshot.ts";
import { checkedUrl } from "./remote-url.ts";

/** One part as it is sent: the artifact's bytes from `start` up to, but not with, `end`, to this URL. */
export interface Part {
  readonly artifactId: string;
  readonly number: number;
  readonly start: number;
  readonly end: number;
  readonly url: URL;
}

/** Which file each artifact of a plan means. Throws `artifact_not_found`, `bad_request` when one is named twice. */
export function kindsOf(
  plan: UploadSnapshot,
  kindOf: (artifactId: string) => ArtifactKind | undefined,
): ArtifactKind[] {
  const kinds: ArtifactKind[] = [];
  for (const [index, { artifact_id }] of plan.artifacts.entries()) {
    const kind = kindOf(artifact_id);
    if (kind === undefined) {
      throw new AppError("artifact_not_found", `The snapshot has no artifact ${artifact_id}.`, {
        details: { artifact_id },
      });
    }
    if (kinds.includes(kind)) throw malformed(`artifacts.${index}.artifact_id`, "names an artifact again");
    kinds.push(kind);
  }
  return kinds;
}

/**
 * The parts of the artifact at `index` of a plan by their numbers, for a file of `size` bytes. Parts follow each other
 * without gap or overlap; only an empty file has an empty part. Throws `bad_request` naming the field, `artifact_refused`.
 */
export function partsOf(
  { artifact_id: artifactId, parts }: UploadSnapshot["artifacts"][number],
  index: number,
  size: number,
): Part[] {
  const field = `artifacts.${index}.parts`;
  const planned = parts.map((part, place) => ({ ...part, field: `${field}.${place}` }));
  planned.sort((one, other) => one.part_number - other.part_number);
  let end = 0;
  let last = 0;
  for (const part of planned) {
    if (part.part_number === last) throw malformed(`${part.field}.part_number`, `has ${last} again`);
    if (part.offset_bytes !== end) {
      throw malformed(
        `${part.field}.offset_bytes`,
        `is ${part.offset_bytes}, but the parts before it end at ${end}`,
      );
    }
    if (part.size_bytes === 0 && (size > 0 || parts.length > 1))
      throw malformed(`${part.field}.size_bytes`, "is 0, and only an empty artifact is one empty part");
    end += part.size_bytes;
    last = part.part_number;
  }
  if (end !== size) throw malformed(field, `have ${end} bytes together, but the artifact has ${size}`);
  return planned.map((part) => ({
    artifactId,
    number: part.part_number,
    start: part.offset_bytes,
    end: part.offset_bytes + part.size_bytes,
    url: checkedUrl(part.upload_url, []),
  }));
}

function malformed(field: string, problem: string): AppError {
  return new AppError("bad_request", `${field} ${problem}.`, { details: { field } });
}
