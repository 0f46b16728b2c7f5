/** A case of a suite: its file, and its name with those of the groups around it. */
export interface Case {
  readonly file: string;
  readonly name: string;
}

/** What the files imported so far declare, in their order. */
export const collected: Case[] = [];

const groups: string[] = [];
let file = "";

/** Whose cases the next declarations are. */
export function collectFor(path: string): void {
  file = path;
}

/** The name under which a case is recorded. */
export function caseName(parts: readonly string[]): string {
  return parts.join(" > ");
}

function declare(name: string): void {
  collected.push({ file, name: caseName([...groups, name]) });
}

/** Groups run their bodies while they are declared, as node:test's do; all of the suite's are synchronous. */
function group(name: string, ...rest: readonly unknown[]): void {
  const body = rest.at(-1);
  if (typeof body !== "function") throw new Error(`the group ${name} has no body`);
  groups.push(name);
  try {
    const result: unknown = body();
    if (result !== undefined) throw new Error(`the group ${name} is not synchronous`);
  } finally {
    groups.pop();
  }
}

function nothing(): void {
  // Hooks declare no case.
}

export { declare as it, declare as test, group as describe, group as suite };
export { nothing as after, nothing as afterEach, nothing as before, nothing as beforeEach };
