/** The rule for instance and jail ids: letters, digits and hyphens, 1 to 64 of them. */

const MAX_LENGTH = 64;

/** What is wrong with an id: as a sentence and in the debug form that the real programs print. */
export interface IdFault {
  readonly sentence: string;
  readonly debug: string;
}

/** Returns what is wrong with `id`, or undefined if it is a good one. Length is counted in bytes. */
export function instanceIdFault(id: string): IdFault | undefined {
  const length = Buffer.byteLength(id);
  if (length < 1 || length > MAX_LENGTH) {
    return {
      sentence: `Invalid len (${length});  the length must be between 1 and ${MAX_LENGTH}`,
      debug: `InvalidLen(${length}, 1, ${MAX_LENGTH})`,
    };
  }
  for (const [index, char] of Array.from(id).entries()) {
    if (char !== "-" && !/^[\p{Alphabetic}\p{Nd}\p{Nl}\p{No}]$/u.test(char)) {
      return {
        sentence: `Invalid char (${char}) at position ${index}`,
        debug: `InvalidChar('${char}', ${index})`,
      };
    }
  }
  return undefined;
}
