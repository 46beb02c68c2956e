import { describe, expect } from 'vitest';
import { type CborMap, decodeCbor, encodeCbor } from '../../../lib/snapshot/cbor.js';
import { itRefuses } from './hostile-attempt.js';
import {
  copyOf,
  INDEX,
  type Json,
  LAST_INDEX,
  type Pieces,
  STATE,
  samplePieces,
} from './hostile-store.js';
import { CHUNK, PAGE } from './samples.js';

const good = await samplePieces();

const decode = (bytes: Buffer): Json => decodeCbor(bytes, 'test');
const encode = (value: Json): Buffer => Buffer.from(encodeCbor(value));

function changed(layer: number, change: (value: CborMap & Json) => void): Pieces {
  const pieces = copyOf(good);
  const value = decode(Buffer.from(pieces.layers[layer] as Buffer));
  change(value);
  pieces.layers[layer] = encode(value);
  return pieces;
}

const record = (view: Uint8Array, at: number): DataView =>
  new DataView(view.buffer, view.byteOffset + at, view.length - at);
/** Changes the first extent: gpa at 0, length at 8, offset at 16, part at 24, reserved at 28. */
const extent =
  (at: number, value: bigint) =>
  (index: Json): void =>
    record(index.extents, 0).setBigUint64(at, value, true);

const deep = (levels: number): Json => (levels === 0 ? 1 : [deep(levels - 1)]);
const bomb = (head: number[]): Buffer => Buffer.from(head);

function withLayer(layer: number, bytes: Buffer): Pieces {
  const pieces = copyOf(good);
  pieces.layers[layer] = bytes;
  return pieces;
}

/** Replaces text in a blob by text of the same length. */
function renamed(blob: Buffer, ...pairs: string[]): Buffer {
  let bytes = Buffer.from(blob).toString('latin1');
  for (let i = 0; i < pairs.length; i += 2) {
    bytes = bytes.replace(pairs[i] as string, pairs[i + 1] as string);
  }
  expect(bytes).toHaveLength(blob.length);
  return Buffer.from(bytes, 'latin1');
}

describe('state or memory index, under a digest that fits, is refused when it is', () => {
  itRefuses({
    'state: not CBOR': () => withLayer(STATE, Buffer.from('hello')),
    'state: empty': () => withLayer(STATE, Buffer.alloc(0)),
    'state: bytes after it': () =>
      withLayer(STATE, Buffer.concat([good.layers[STATE] as Buffer, Buffer.from([0])])),
    'state: array of 4 billion': () => withLayer(STATE, bomb([0x9a, 255, 255, 255, 255])),
    'state: map of 2^64': () =>
      withLayer(STATE, bomb([0xbb, 255, 255, 255, 255, 255, 255, 255, 255])),
    'state: string of 4 GiB': () => withLayer(STATE, bomb([0x5a, 255, 255, 255, 255])),
    'state: a million arrays deep': () => withLayer(STATE, Buffer.alloc(1e6, 0x81)),
    'state: indefinite array': () => withLayer(STATE, bomb([0x9f, 0xff])),
    'state: tag': () => withLayer(STATE, bomb([0xc1, 0x00])),
    'state: regular expression tag': () => withLayer(STATE, bomb([0xd8, 35, 0x61, 0x61])),
    'state: float': () => withLayer(STATE, bomb([0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0])),
    'state: 17 levels': () =>
      changed(STATE, (s) => {
        s.devices.serial.state.deep = deep(17);
      }),
    'state: other format': () =>
      changed(STATE, (s) => {
        s.format = 'other';
      }),
    'state: version of the future': () =>
      changed(STATE, (s) => {
        s.version = 2;
      }),
    'state: version 0': () =>
      changed(STATE, (s) => {
        s.version = 0;
      }),
    'state: vCPU section of the future': () =>
      changed(STATE, (s) => {
        s.vcpus[0].version = 99;
      }),
    'state: device of the future': () =>
      changed(STATE, (s) => {
        s.devices.serial.version = 2;
      }),
    'state: other architecture': () =>
      changed(STATE, (s) => {
        s.arch = 'aarch64';
      }),
    'state: unknown key': () =>
      changed(STATE, (s) => {
        s.vcpus[0].extra = 1;
      }),
    'state: no vCPU': () =>
      changed(STATE, (s) => {
        s.vcpus = [];
      }),
    'state: more vCPUs than the config': () =>
      changed(STATE, (s) => {
        s.vcpus.push(s.vcpus[0]);
      }),
    'state: vcpus no array': () =>
      changed(STATE, (s) => {
        s.vcpus = 5;
      }),
    'state: short kvm_regs': () =>
      changed(STATE, (s) => {
        s.vcpus[0].kvm_regs = new Uint8Array(143);
      }),
    'state: long kvm_sregs2': () =>
      changed(STATE, (s) => {
        s.vcpus[0].kvm_sregs2 = new Uint8Array(321);
      }),
    'state: xsave of 1 MiB': () =>
      changed(STATE, (s) => {
        s.vcpus[0].kvm_xsave = new Uint8Array(2 ** 20);
      }),
    'state: half an MSR': () =>
      changed(STATE, (s) => {
        s.vcpus[0]['kvm_msr_entry[]'] = new Uint8Array(24);
      }),
    'state: no CPUID': () =>
      changed(STATE, (s) => {
        s.vcpus[0]['kvm_cpuid_entry2[]'] = new Uint8Array(0);
      }),
    'state: missing LAPIC': () =>
      changed(STATE, (s) => {
        delete s.vcpus[0].kvm_lapic_state;
      }),
    'state: missing clock': () =>
      changed(STATE, (s) => {
        delete s.vm.kvm_clock_data;
      }),
    'state: negative TSC': () =>
      changed(STATE, (s) => {
        s.vcpus[0].tsc_khz = -1;
      }),
    'state: text for a struct': () =>
      changed(STATE, (s) => {
        s.vm.kvm_clock_data = 'x'.repeat(48);
      }),
    'state: device field of text': () =>
      changed(STATE, (s) => {
        s.devices.serial.state.ier = 'x';
      }),
    'state: device named __proto__': () =>
      withLayer(STATE, renamed(good.layers[STATE] as Buffer, 'serial', '__pr__')),
    'state: device of a bad name': () =>
      changed(STATE, (s) => {
        s.devices['../x'] = s.devices.serial;
      }),
    'state: duplicate key': () =>
      withLayer(
        STATE,
        renamed(good.layers[STATE] as Buffer, 'vcpus', 'versi', 'devices', 'version'),
      ),
    'index: gpa not of a page': () => changed(INDEX, extent(0, 1n)),
    'index: gpa outside RAM': () => changed(INDEX, extent(0, 1n << 40n)),
    'index: gpa that overflows': () => changed(INDEX, extent(0, 0xffff_ffff_ffff_f000n)),
    'index: length 0': () => changed(INDEX, extent(8, 0n)),
    'index: length that overflows': () => changed(INDEX, extent(8, 0xffff_ffff_ffff_f000n)),
    'index: length beyond the region': () => changed(INDEX, extent(8, 1n << 30n)),
    'index: overlapping extents': () => changed(INDEX, extent(8, 8192n)),
    'index: offset not of a page': () => changed(INDEX, extent(16, 512n)),
    'index: offset beyond the part': () => changed(INDEX, extent(16, 1n << 20n)),
    'index: offset that overflows': () => changed(INDEX, extent(16, 0xffff_ffff_ffff_f000n)),
    'index: part that is not there': () => changed(INDEX, extent(24, 9n)),
    'index: reserved field set': () => changed(INDEX, extent(24, 1n << 32n)),
    'index: half an extent': () =>
      changed(INDEX, (i) => {
        i.extents = i.extents.slice(0, 40);
      }),
    'index: extents out of order': () =>
      changed(INDEX, (i) => {
        const first = i.extents.slice(0, 32);
        i.extents.copyWithin(0, 32, 64);
        i.extents.set(first, 32);
      }),
    'index: zero extent over content': () =>
      changed(LAST_INDEX, (i) => {
        record(i.zeros, 0).setBigUint64(0, BigInt(PAGE), true);
      }),
    'index: zero extent outside RAM': () =>
      changed(LAST_INDEX, (i) => {
        record(i.zeros, 0).setBigUint64(0, 1n << 50n, true);
      }),
    'index: chunk size of 3': () =>
      changed(INDEX, (i) => {
        i.chunkSize = 3;
      }),
    'index: chunk size 0': () =>
      changed(INDEX, (i) => {
        i.chunkSize = 0;
      }),
    'index: chunk size of 64 bits': () =>
      changed(INDEX, (i) => {
        i.chunkSize = 2n ** 63n;
      }),
    'index: checksum missing': () =>
      changed(INDEX, (i) => {
        i.parts[0].crc32c = i.parts[0].crc32c.slice(4);
      }),
    'index: checksum wrong': () =>
      changed(INDEX, (i) => {
        i.parts[0].crc32c[0] ^= 1;
      }),
    'index: part of another size': () =>
      changed(INDEX, (i) => {
        i.parts[0].size += BigInt(CHUNK);
        i.parts[0].crc32c = new Uint8Array(i.parts[0].crc32c.length + 4);
      }),
    'index: part of 2^63 bytes': () =>
      changed(INDEX, (i) => {
        i.parts[0].size = 2n ** 63n;
      }),
    'index: one part fewer': () =>
      changed(INDEX, (i) => {
        i.parts.pop();
      }),
    'index: regions of another machine': () =>
      changed(INDEX, (i) => {
        i.regions[0].size *= 2n;
      }),
    'index: a region twice': () =>
      changed(INDEX, (i) => {
        i.regions.push(i.regions[0]);
      }),
    'index: no region': () =>
      changed(INDEX, (i) => {
        i.regions = [];
      }),
    'index: version of the future': () =>
      changed(LAST_INDEX, (i) => {
        i.version = 2;
      }),
    'index: unknown key': () =>
      changed(INDEX, (i) => {
        i.compression = 'zstd';
      }),
  });
});
