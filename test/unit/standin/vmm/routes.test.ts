import assert from "node:assert/strict";
import { test } from "node:test";

import type { Method } from "../../../../src/standin/vmm/http-connection.ts";
import { route } from "../../../../src/standin/vmm/routes.ts";

function ask(method: Method, path: string, body?: string): string {
  return route({ method, path, body }).name;
}

for (const [method, path, body, name] of [
  ["GET", "/", undefined, "get-instance-info"],
  ["GET", "//version/", undefined, "get-version"],
  ["GET", "/vm/config", undefined, "get-vm-config"],
  ["GET", "/balloon/statistics", undefined, "get-balloon-statistics"],
  ["PUT", "/actions", '{"action_type":"InstanceStart"}', "start"],
  ["PUT", "/actions", '{"action_type":"SendCtrlAltDel"}', "send-ctrl-alt-del"],
  ["PUT", "/drives/a", '{"drive_id":"a","is_root_device":false}', "insert-drive"],
  ["PATCH", "/vm", '{"state":"Paused"}', "pause"],
  ["PATCH", "/machine-config", '{"vcpu_count":2}', "update-machine-config"],
  ["PUT", "/snapshot/create", '{"snapshot_path":"a","mem_file_path":"b"}', "create-snapshot"],
  ["DELETE", "/drives/a", undefined, "unplug"],
] as const) {
  test(`${method} ${path} asks for ${name}`, () => assert.equal(ask(method, path, body), name));
}

for (const [method, path, body, words] of [
  ["GET", "/nope", undefined, "Invalid request method and/or path: GET nope."],
  ["GET", "/", "{}", "GET request cannot have a body."],
  ["PUT", "/machine-config", undefined, "Empty PUT request."],
  ["PATCH", "/machine-config", "{}", "Empty PATCH request."],
  ["DELETE", "/drives/x", "{}", "Empty Delete request."],
  ["PUT", "/drives", "{}", "The ID cannot be empty."],
  ["PUT", "/drives/a-b", "{}", "API Resource IDs can only contain alphanumeric characters and underscores."],
  [
    "PUT",
    "/drives/a",
    '{"drive_id":"b","is_root_device":false}',
    "The id from the path does not match the id from the body!",
  ],
  [
    "PUT",
    "/network-interfaces/a",
    '{"iface_id":"b","host_dev_name":"t"}',
    "The id from the path [a] does not match the id from the body [b]!",
  ],
  ["PUT", "/snapshot", "{}", "Missing snapshot operation type."],
  ["PUT", "/snapshot/x", "{}", "Invalid request method and/or path: PUT /snapshot/x."],
  [
    "PUT",
    "/snapshot/load",
    '{"snapshot_path":"a"}',
    "An error occurred when deserializing the json body of a request: missing field: either `mem_backend` or `mem_file_path` is required.",
  ],
] as const) {
  test(`${method} ${path} with ${body ?? "no body"} is refused`, () => {
    assert.throws(() => ask(method, path, body), { name: "Fault", message: words });
  });
}

test("a field that is on its way out is marked", () => {
  const body = '{"vcpu_count":1,"mem_size_mib":1,"cpu_template":"T2"}';
  assert.equal(route({ method: "PUT", path: "/machine-config", body }).isDeprecated, true);
});
