import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { audit, machine, repair } from "../client/support/samples.ts";
import { always } from "../client/support/socket-server.ts";
import { cli } from "./run.ts";

describe("computer audit", () => {
  it("shows what is not as it should be and ends with 1; with --all everything", async () => {
    const some = await cli(["audit"], always(200, audit));
    assert.equal(some.code, 1);
    assert.equal(some.requests[0]?.path, "/audit");
    assert.match(some.out, /^leaked +jail +abcdefghij +no machine has it$/m);
    assert.doesNotMatch(some.out, /ch-a1b2c3-4/);
    assert.match(some.out, /2 things .* not all as it should be$/);
    const all = await cli(["audit", "--all"], always(200, audit));
    assert.match(all.out, /^ok +namespace +ch-a1b2c3-4 +machine vm-1$/m);
    assert.deepEqual(JSON.parse((await cli(["audit", "--json"], always(200, audit))).out), audit);
  });

  it("ends with 0 when all is well", async () => {
    const { code, out } = await cli(["audit"], always(200, repair.audit));
    assert.deepEqual([code, out], [0, "1 thing on the host is this daemon's, and as it should be"]);
  });

  it("mends first with --repair, and says what it did and what it could not", async () => {
    const failed = {
      ...repair,
      repaired: [
        ...repair.repaired,
        {
          resource: "link",
          name: "tap0",
          action: "left as it is",
          ok: false,
          reason: "the VMM holds another",
        },
      ],
    };
    const { code, out, requests } = await cli(["audit", "--repair"], always(200, failed));
    assert.deepEqual([code, requests[0]?.method, requests[0]?.path], [0, "POST", "/audit/repair"]);
    assert.match(out, /^mended +jail +abcdefghij +removed, with what ran there$/m);
    assert.match(out, /^not mended +link +tap0 +left as it is: the VMM holds another$/m);
    assert.deepEqual(
      JSON.parse((await cli(["audit", "--repair", "--json"], always(200, failed))).out),
      failed,
    );
  });
});

describe("a machine that ended by itself", () => {
  it("tells how, and when it is started again", async () => {
    const ended = {
      ...machine,
      restart: "on-failure",
      restarts: { count: 3, next_at: "2026-01-01T00:00:04.000Z" },
      ended: { at: "2026-01-01T00:00:00.000Z", how: "panic", console_tail: "Kernel panic" },
    };
    const { out } = await cli(["get", "vm-1"], always(200, { machine: ended }));
    assert.match(out, /^restart +on-failure, 3 times so far, next at 2026-01-01T00:00:04.000Z$/m);
    assert.match(out, /^ended +panic, 2026-01-01T00:00:00.000Z$/m);
    const created = await cli(["create", "vm-1", "--restart", "always"], always(201, { machine }));
    assert.deepEqual(created.requests[0]?.body, { machine_id: "vm-1", restart: "always" });
    assert.equal((await cli(["create", "vm-1", "--restart", "now"])).code, 2);
  });
});
