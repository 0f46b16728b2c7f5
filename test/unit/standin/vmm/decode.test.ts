import assert from "node:assert/strict";
import { test } from "node:test";

import { assert as check, constantFrom, jsonValue, nat, property, string } from "fast-check";

import * as bodies from "../../../../src/standin/vmm/bodies.ts";
import { decodeBody, type Decoder } from "../../../../src/standin/vmm/decode.ts";
import { JsonError, plainValue, readJson } from "../../../../src/standin/vmm/json-reader.ts";

/** Bodies that Firecracker refuses, with what it really answered. */
const REFUSED: readonly (readonly [Decoder<unknown>, string, string])[] = [
  [bodies.machineConfig, '{"vcpu_count":"x"}', 'invalid type: string "x", expected u8 at line 1 column 17'],
  [
    bodies.machineConfig,
    '{"foo":1}',
    "unknown field `foo`, expected one of `vcpu_count`, `mem_size_mib`, `smt`, `cpu_template`, `track_dirty_pages`, `huge_pages` at line 1 column 6",
  ],
  [bodies.machineConfig, "{", "EOF while parsing an object at line 1 column 1"],
  [bodies.machineConfig, "{}", "missing field `vcpu_count` at line 1 column 2"],
  [
    bodies.machineConfig,
    "[]",
    "invalid length 0, expected struct MachineConfig with 6 elements at line 1 column 2",
  ],
  [bodies.machineConfig, "x", "expected value at line 1 column 1"],
  [
    bodies.machineConfig,
    '{"vcpu_count":300,"mem_size_mib":1}',
    "invalid value: integer `300`, expected u8 at line 1 column 17",
  ],
  [
    bodies.machineConfig,
    '{"vcpu_count":1.5,"mem_size_mib":1}',
    "invalid type: floating point `1.5`, expected u8 at line 1 column 17",
  ],
  [
    bodies.machineConfig,
    '{"vcpu_count":1,"mem_size_mib":1,"vcpu_count":2}',
    "duplicate field `vcpu_count` at line 1 column 45",
  ],
  [bodies.machineConfig, '{"vcpu_count":1,"mem_size_mib":1} x', "trailing characters at line 1 column 35"],
  [
    bodies.machineConfig,
    '{"vcpu_count":1,"mem_size_mib":128,"huge_pages":"X"}',
    "unknown variant `X`, expected one of `None`, `Transparent`, `2M` at line 1 column 51",
  ],
  [
    bodies.machineConfig,
    '{"vcpu_count":1,"mem_size_mib":{}}',
    "invalid type: map, expected usize at line 1 column 31",
  ],
  [
    bodies.machineConfig,
    '{"vcpu_count":1,"mem_size_mib":[1]}',
    "invalid type: sequence, expected usize at line 1 column 31",
  ],
  [bodies.machineConfig, '{"vcpu_count":null}', "invalid type: null, expected u8 at line 1 column 18"],
  [
    bodies.machineConfig,
    '{"vcpu_count":true}',
    "invalid type: boolean `true`, expected u8 at line 1 column 18",
  ],
  [bodies.machineConfig, '{"vcpu_count":-1}', "invalid value: integer `-1`, expected u8 at line 1 column 16"],
  [bodies.actionBody, '{"action_type":1}', "expected value at line 1 column 16"],
  [bodies.actionBody, '"x"', 'invalid type: string "x", expected struct ActionBody at line 1 column 3'],
  [
    bodies.vmState,
    '{"state":"X"}',
    "unknown variant `X`, expected `Paused` or `Resumed` at line 1 column 12",
  ],
  [
    bodies.networkInterface,
    '{"iface_id":"n","host_dev_name":"tap77","guest_mac":"zz"}',
    "The provided MAC address is invalid. at line 1 column 57",
  ],
  [
    bodies.mmdsConfig,
    '{"network_interfaces":["x"],"ipv4_address":"1.2.3"}',
    "invalid IPv4 address syntax at line 1 column 50",
  ],
  [bodies.logger, '{"level":"x"}', "Invalid LevelFilter at line 1 column 13"],
];

for (const [decode, body, words] of REFUSED) {
  test(`${body} is refused as Firecracker refuses it`, () => {
    assert.throws(() => decodeBody(decode, body), { name: "JsonError", message: words });
  });
}

test("absent fields get their defaults, and fields keep their own order", () => {
  const drive = decodeBody(bodies.drive, '{"is_root_device":true,"drive_id":"a","path_on_host":"/x"}');
  assert.deepEqual(drive, {
    drive_id: "a",
    partuuid: null,
    is_root_device: true,
    cache_type: "Unsafe",
    is_read_only: null,
    path_on_host: "/x",
    rate_limiter: null,
    io_engine: null,
    socket: null,
  });
  assert.deepEqual(Object.keys(drive).slice(0, 3), ["drive_id", "partuuid", "is_root_device"]);
});

test("whatever JSON can say is read as JSON.parse reads it", () => {
  check(
    property(jsonValue(), nat(3), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      assert.deepEqual(plainValue(readJson(text)), JSON.parse(text));
    }),
  );
});

/** What JSON is made of, and a little of what it is not. */
const FRAGMENTS = '{}[]",:0123456789.eE+-truefalsnl \\u\n'.split("");

test("whatever is no JSON for JSON.parse is none here either", () => {
  check(
    property(string({ unit: constantFrom(...FRAGMENTS) }), (text) => {
      let parsed = true;
      try {
        JSON.parse(text);
      } catch {
        parsed = false;
      }
      if (parsed) readJson(text);
      else assert.throws(() => readJson(text), JsonError);
    }),
    { numRuns: 2000 },
  );
});
