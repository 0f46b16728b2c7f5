/** Tag of a piece of shell: as it is written, but for `${`, which needs a backslash before it here. */
export function shell(pieces: TemplateStringsArray, ...values: readonly string[]): string {
  return String.raw({ raw: pieces.raw.map((piece) => piece.replaceAll("\\${", "${")) }, ...values);
}
