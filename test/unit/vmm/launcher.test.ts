import assert from "node:assert/strict";
import { readdirSync, readlinkSync } from "node:fs";
import { test } from "node:test";
import { stubRoom } from "../../support/stub-vmm/room.ts";

const skip = process.getuid?.() === 0 ? false : "needs root: a jail is made of namespaces";

/** What this process has open below the folder. */
function openBelow(folder: string): string[] {
  return readdirSync("/proc/self/fd").flatMap((descriptor) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${descriptor}`);
      return path.startsWith(folder) ? [path] : [];
    } catch {
      // The descriptor of the listing itself.
      return [];
    }
  });
}

test("a launch whose VMM does not answer as it should keeps nothing of its jail open", { skip }, async () => {
  await using room = await stubRoom();
  const vmm = await room.vmms.launch(await room.spec());
  assert.notDeepEqual(openBelow(room.rootDir), [], "of one that runs there is its socket");
  await vmm.kill();
  assert.deepEqual(openBelow(room.rootDir), []);
  await assert.rejects(room.vmms.launch(await room.spec("GET / refuse\n")), { code: "vmm_failed" });
  assert.deepEqual(openBelow(room.rootDir), []);
  await room.vmms.release(vmm.ref);
});
