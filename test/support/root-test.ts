import { type TestContext, test } from "node:test";

const skip = process.getuid?.() === 0 ? false : "needs root: files that belong to root and to others";

/** A test that only root can run; anybody else sees it skipped, with the reason. */
export function rootTest(name: string, body: (t: TestContext) => Promise<void>): void {
  test(name, { skip }, body);
}
