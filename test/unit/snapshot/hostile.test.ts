import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { KvmsnapError } from '../../../lib/errors.js';
import { type CborMap, decodeCbor, encodeCbor } from '../../../lib/snapshot/cbor.js';
import type { LoadedSnapshot } from '../../../lib/snapshot/load.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import {
  copyOf,
  type Json,
  type Pieces,
  type Spoil,
  samplePieces,
  writeStore,
} from './hostile-store.js';
import { CHUNK, PAGE, scratch } from './samples.js';

let good: Pieces;
let digest: string;
beforeAll(async () => {
  good = await samplePieces();
  const dir = writeStore(good);
  digest = await (await SnapshotStore.open(dir)).resolve('sample');
});

/** Opens, loads and verifies: the code of the refusal, or the digest of what was accepted. */
async function attempt(dir: string, ref = 'sample'): Promise<string> {
  try {
    const store = await SnapshotStore.open(dir);
    await store.list();
    const loaded = await store.load(ref);
    try {
      requireSound(loaded);
    } finally {
      loaded.close();
    }
    await store.verify(ref);
    return loaded.digest;
  } catch (error) {
    if (error instanceof KvmsnapError) return error.code;
    throw error;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

const REFUSED = /^ERR_SNAPSHOT_(FORMAT|CORRUPT|MISSING|INCOMPATIBLE)$/;

/** Whatever is accepted must be safe to hand to mmap and to KVM. */
function requireSound({ regions, extents, files, state }: LoadedSnapshot): void {
  let end = 0n;
  for (const { file, gpa, length, offset } of extents) {
    expect(gpa >= end && length > 0 && offset >= 0).toBe(true);
    end = gpa + BigInt(length);
    expect(regions.some((r) => gpa >= r.gpa && end <= r.gpa + BigInt(r.size))).toBe(true);
    expect(offset + length <= (files[file]?.size ?? -1)).toBe(true);
    expect((BigInt(length) | BigInt(offset) | gpa) & 4095n).toBe(0n);
  }
  for (const vcpu of state.vcpus) {
    expect(vcpu.regs).toHaveLength(144);
    expect(vcpu.xsave2.length).toBeGreaterThanOrEqual(4096);
  }
}

const decode = (bytes: Buffer): Json => decodeCbor(bytes, 'test');
const encode = (value: Json): Buffer => Buffer.from(encodeCbor(value));
/** Where things are in `layers` of the sample. */
const STATE = 0;
const INDEX = 1;
const LAST_INDEX = 4;

function changed(layer: number, change: (value: CborMap & Json) => void): Pieces {
  const pieces = copyOf(good);
  const value = decode(Buffer.from(pieces.layers[layer] as Buffer));
  change(value);
  pieces.layers[layer] = encode(value);
  return pieces;
}

function withConfig(change: (config: Json) => Json | undefined): Pieces {
  const pieces = copyOf(good);
  const config = JSON.parse(Buffer.from(pieces.config).toString());
  const result = change(config) ?? config;
  pieces.config = Buffer.from(typeof result === 'string' ? result : JSON.stringify(result));
  return pieces;
}

const record = (view: Uint8Array, at: number): DataView =>
  new DataView(view.buffer, view.byteOffset + at, view.length - at);
/** Changes the first extent: gpa at 0, length at 8, offset at 16, part at 24, reserved at 28. */
const extent =
  (at: number, value: bigint) =>
  (index: Json): void =>
    record(index.extents, 0).setBigUint64(at, value, true);

it('the sample itself is accepted', async () => {
  expect(await attempt(writeStore(good))).toBe(digest);
  expect(Buffer.from(good.layers[INDEX] as Buffer)).toEqual(
    encode(decode(Buffer.from(good.layers[INDEX] as Buffer))),
  );
});

const deep = (levels: number): Json => (levels === 0 ? 1 : [deep(levels - 1)]);
const bomb = (head: number[]): Buffer => Buffer.from(head);

describe('a blob whose digest fits is refused when', () => {
  const cases: Record<string, () => Pieces | [Pieces, Spoil]> = {
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
    'config: not JSON': () => withConfig(() => 'x'),
    'config: null': () => withConfig(() => 'null'),
    'config: NaN': () => withConfig((c) => JSON.stringify(c).replace('"vcpus":1', '"vcpus":NaN')),
    'config: 1e999': () =>
      withConfig((c) => JSON.stringify(c).replace('"vcpus":1', '"vcpus":1e999')),
    'config: negative vCPUs': () =>
      withConfig((c) => {
        c.machine.vcpus = -1;
      }),
    'config: half a vCPU': () =>
      withConfig((c) => {
        c.machine.vcpus = 0.5;
      }),
    'config: a million vCPUs': () =>
      withConfig((c) => {
        c.machine.vcpus = 1e6;
      }),
    'config: duplicate key': () =>
      withConfig((c) => JSON.stringify(c).replace('"vcpus":1', '"vcpus":2,"vcpus":1')),
    'config: duplicate key, escaped': () =>
      withConfig((c) => JSON.stringify(c).replace('"vcpus":1', '"\\u0076cpus":2,"vcpus":1')),
    'config: __proto__': () =>
      withConfig((c) => JSON.stringify(c).replace('"vcpus":1', '"__proto__":{"x":1},"vcpus":1')),
    'config: nested 100 000 deep': () =>
      withConfig((c) => `{"x":${'['.repeat(1e5)}${']'.repeat(1e5)},${JSON.stringify(c).slice(1)}`),
    'config: 2 MiB': () =>
      withConfig((c) => {
        c.annotations.filler = 'x'.repeat(2 ** 21);
      }),
    'config: not UTF-8': () => {
      const pieces = copyOf(good);
      pieces.config = Buffer.concat([Buffer.from(pieces.config), Buffer.from([0xff])]);
      return pieces;
    },
    'config: layout of the future': () =>
      withConfig((c) => {
        c.format.layout = 2;
      }),
    'config: state of the future': () =>
      withConfig((c) => {
        c.format.state = 7;
      }),
    'config: other architecture': () =>
      withConfig((c) => {
        c.architecture = 'arm64';
      }),
    'config: unknown device': () =>
      withConfig((c) => {
        c.machine.devices.gpu = true;
      }),
    'config: no devices': () =>
      withConfig((c) => {
        delete c.machine.devices;
      }),
    'config: gpa of 2^60': () =>
      withConfig((c) => {
        c.machine.memory.regions[0].gpa = 2 ** 60;
      }),
    'config: overlapping regions': () =>
      withConfig((c) => {
        const [region] = c.machine.memory.regions;
        c.machine.memory.regions.push({ ...region, slot: 1 });
      }),
    'config: odd region': () =>
      withConfig((c) => {
        c.machine.memory.regions[0].size = 4097;
      }),
    'config: irqchip that the state has and it has not': () =>
      withConfig((c) => {
        c.machine.irqchip = false;
      }),
    'config: parent that is no digest': () =>
      withConfig((c) => {
        c.parent = '../../etc/passwd';
      }),
    'config: time that is none': () =>
      withConfig((c) => {
        c.created = 'yesterday';
      }),
    'manifest: text': () => [good, { manifest: () => 'hello' }],
    'manifest: 5 MiB': () => [good, { manifest: (m) => ({ ...m, x: 'x'.repeat(5 * 2 ** 20) }) }],
    'manifest: schema version 1': () => [good, { manifest: (m) => ({ ...m, schemaVersion: 1 }) }],
    'manifest: other artifact': () => [good, { manifest: (m) => ({ ...m, artifactType: 'a/b' }) }],
    'manifest: other config': () => [
      good,
      { manifest: (m) => ({ ...m, config: { ...m.config, mediaType: 'a/b' } }) },
    ],
    'manifest: no layers': () => [good, { manifest: (m) => ({ ...m, layers: [] }) }],
    'manifest: no memory': () => [
      good,
      { manifest: (m) => ({ ...m, layers: m.layers.slice(0, 1) }) },
    ],
    'manifest: state last': () => [
      good,
      { manifest: (m) => ({ ...m, layers: [...m.layers].reverse() }) },
    ],
    'manifest: two states': () => [
      good,
      { manifest: (m) => ({ ...m, layers: [m.layers[0], ...m.layers] }) },
    ],
    'manifest: a layer of an unknown type': () => [good, onLayer(3, { mediaType: 'a/b' })],
    'manifest: negative size': () => [good, onLayer(2, { size: -1 })],
    'manifest: size of 1e300': () => [good, onLayer(2, { size: 1e300 })],
    'manifest: other size': () => [good, onLayer(2, { size: PAGE })],
    'manifest: other size of the state': () => [good, onLayer(0, { size: 1 })],
    'manifest: state of 1 TiB': () => [good, onLayer(0, { size: 2 ** 40 })],
    'manifest: digest that climbs': () => [
      good,
      onLayer(2, { digest: `sha256:../../../${'a'.repeat(55)}` }),
    ],
    'manifest: digest of another kind': () => [
      good,
      onLayer(2, { digest: `sha1:${'a'.repeat(40)}` }),
    ],
    'manifest: digest in capitals': () => [
      good,
      { manifest: (m) => spoilLayer(m, 2, { digest: m.layers[2].digest.toUpperCase() }) },
    ],
    'manifest: blob that is not there': () => [
      good,
      onLayer(0, { digest: `sha256:${'a'.repeat(64)}` }),
    ],
    'manifest: its own digest as a layer': () => [good, onLayer(0, { digest })],
    'manifest: 20 000 layers': () => [
      good,
      { manifest: (m) => ({ ...m, layers: Array(20_000).fill(m.layers[1]) }) },
    ],
    'manifest: 1025 memory layers': () => [
      good,
      { manifest: (m) => ({ ...m, layers: [m.layers[0], ...Array(1025).fill(m.layers[1])] }) },
    ],
    'manifest: duplicate key': () => [
      good,
      { manifest: (m) => JSON.stringify(m).replace('{', '{"schemaVersion":2,') },
    ],
    'index.json: text': () => [good, { index: () => 'hello' }],
    'index.json: empty': () => [good, { index: () => '' }],
    'index.json: 5 MiB': () => [good, { index: (i) => ({ ...i, x: 'x'.repeat(5 * 2 ** 20) }) }],
    'index.json: no manifests': () => [good, { index: () => ({ schemaVersion: 2 }) }],
    'index.json: a tag twice': () => [
      good,
      {
        index: (i) => ({
          ...i,
          manifests: [...i.manifests, { ...i.manifests[0], digest: `sha256:${'b'.repeat(64)}` }],
        }),
      },
    ],
    'index.json: digest that climbs': () => [
      good,
      onEntry({ digest: 'sha256:../../../../etc/passwd' }),
    ],
    'index.json: other size': () => [good, onEntry({ size: 1 })],
    'index.json: size of 1 GiB': () => [good, onEntry({ size: 2 ** 30 })],
    'index.json: other artifact': () => [good, onEntry({ artifactType: 'a/b' })],
    'index.json: nested index': () => [
      good,
      onEntry({ mediaType: 'application/vnd.oci.image.index.v1+json' }),
    ],
  };

  it.each(Object.keys(cases))('%s', async (name) => {
    const made = (cases[name] as () => Pieces | [Pieces, Spoil])();
    const [pieces, spoil] = Array.isArray(made) ? made : [made, {}];
    expect(await attempt(writeStore(pieces, spoil))).toMatch(REFUSED);
    expect(({} as Json).x).toBeUndefined();
  });
});

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

function spoilLayer(manifest: Json, layer: number, change: Json): Json {
  Object.assign(manifest.layers[layer], change);
  return manifest;
}
const onLayer = (layer: number, change: Json): Spoil => ({
  manifest: (m) => spoilLayer(m, layer, change),
});
const onEntry = (change: Json): Spoil => ({
  index: (i) => {
    Object.assign(i.manifests[0], change);
    return i;
  },
});

describe('files that are not what they should be', () => {
  const canary = (): string => {
    const path = join(scratch(), 'canary');
    writeFileSync(path, 'secret outside of the store');
    return path;
  };
  const blobFiles = (dir: string): string[] =>
    readdirSync(join(dir, 'blobs', 'sha256')).map((name) => join(dir, 'blobs', 'sha256', name));

  it('a link in place of any blob is refused, even one to the right bytes', async () => {
    const count = blobFiles(writeStore(good)).length;
    expect(count).toBeGreaterThanOrEqual(8);
    for (let i = 0; i < count; i++) {
      const dir = writeStore(good);
      const path = blobFiles(dir).sort()[i] as string;
      const outside = join(scratch(), 'same-bytes');
      cpSync(path, outside);
      rmSync(path);
      symlinkSync(outside, path);
      expect(await attempt(dir)).toBe('ERR_SNAPSHOT_FORMAT');
    }
  });

  it.each(['oci-layout', 'index.json', 'blobs', 'blobs/sha256'])(
    '%s as a link is refused, even one to the right bytes',
    async (name) => {
      const dir = writeStore(good);
      const outside = join(scratch(), 'moved');
      renameSync(join(dir, name), outside);
      symlinkSync(outside, join(dir, name));
      expect(await attempt(dir)).toBe('ERR_SNAPSHOT_FORMAT');
    },
  );

  it.each(['oci-layout', 'index.json'])(
    '%s as a link shows nothing of its target',
    async (name) => {
      const dir = writeStore(good);
      rmSync(join(dir, name));
      symlinkSync(canary(), join(dir, name));
      const error = await SnapshotStore.open(dir)
        .then((store) => store.load('sample'))
        .catch((reason) => reason);
      expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
      expect(String(error.message)).not.toContain('secret');
    },
  );

  it.each(['fifo', 'directory', 'device'])('a %s in place of a blob is refused', async (kind) => {
    for (const path of blobFiles(writeStore(good)).map((p) => p.split('/').at(-1) as string)) {
      const dir = writeStore(good);
      const target = join(dir, 'blobs', 'sha256', path);
      rmSync(target);
      if (kind === 'fifo') execFileSync('mkfifo', [target]);
      else if (kind === 'directory') mkdirSync(target);
      else symlinkSync('/dev/zero', target);
      expect(await attempt(dir)).toBe('ERR_SNAPSHOT_FORMAT');
    }
  });

  it('a missing blob is named', async () => {
    for (const path of blobFiles(writeStore(good)).map((p) => p.split('/').at(-1) as string)) {
      const dir = writeStore(good);
      rmSync(join(dir, 'blobs', 'sha256', path));
      // A part that an increment hides is only missed by verify.
      expect(await attempt(dir)).toMatch(/^ERR_SNAPSHOT_(MISSING|CORRUPT)$/);
    }
  });

  it('a sparse blob of 1 TiB is not read', async () => {
    for (const layer of [STATE, INDEX, 2]) {
      const dir = writeStore(good, onLayer(layer, { size: 2 ** 40 }));
      const name = good.manifest.layers[layer].digest.slice(7);
      truncateSync(join(dir, 'blobs', 'sha256', name), 2 ** 40);
      expect(await attempt(dir)).toMatch(REFUSED);
    }
  });

  it.each(['../../etc/passwd', '/etc/passwd', 'sha256:../x', '', '.', 'a\0b', 'sha256:'])(
    'asking for %j finds nothing',
    async (ref) => {
      expect(await attempt(writeStore(good), ref)).toBe('ERR_SNAPSHOT_MISSING');
    },
  );
});

describe('random damage', () => {
  /** Accepted means unchanged: what digests do not cover may hold no more than names. */
  const refusedOrSame = async (dir: string): Promise<void> => {
    const result = await attempt(dir);
    if (result !== digest) expect(result).toMatch(REFUSED);
  };

  const damage = fc.record({
    file: fc.nat(),
    at: fc.nat(),
    kind: fc.constantFrom('flip', 'cut', 'grow', 'zero', 'swap'),
    bit: fc.nat(7),
  });

  it('300 stores with a damaged file', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(damage, async ({ file, at, kind, bit }) => {
        const dir = writeStore(good);
        const blobs = readdirSync(join(dir, 'blobs', 'sha256')).map((n) => join('blobs/sha256', n));
        const names = ['oci-layout', 'index.json', ...blobs.sort()];
        const path = join(dir, names[file % names.length] as string);
        const before = readFileSync(path);
        const bytes = Buffer.from(before);
        const position = at % bytes.length;
        if (kind === 'flip') bytes[position] = (bytes[position] as number) ^ (1 << bit);
        if (kind === 'zero') bytes.subarray(position, position + 64).fill(0);
        if (kind === 'swap') bytes.subarray(position).reverse();
        if (kind === 'cut') truncateSync(path, position);
        else writeFileSync(path, kind === 'grow' ? Buffer.concat([bytes, bytes]) : bytes);
        const isBlob = path.includes('sha256');
        const isChanged = kind === 'cut' || kind === 'grow' || !before.equals(bytes);
        if (isBlob && isChanged) expect(await attempt(dir)).toMatch(REFUSED);
        else await refusedOrSame(dir);
      }),
      { numRuns: 300, seed: 20_261_121 },
    );
  });

  it('400 blobs that are damaged under a digest that fits', { timeout: 120_000 }, async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(STATE, INDEX, LAST_INDEX),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        async (layer, changes) => {
          const pieces = copyOf(good);
          const bytes = Buffer.from(pieces.layers[layer] as Buffer);
          // Heads and keys lie at both ends of the state: register bytes in between are anyone's.
          const span = layer === STATE ? 120 : bytes.length;
          for (const [at, value] of changes) {
            const place = layer === STATE && at % 2 ? bytes.length - 1 - (at % span) : at % span;
            bytes[place] = value;
          }
          pieces.layers[layer] = bytes;
          const result = await attempt(writeStore(pieces));
          if (result.startsWith('ERR')) {
            expect(result).toMatch(REFUSED);
            refused++;
          }
        },
      ),
      { numRuns: 400, seed: 20_261_121 },
    );
    expect(refused).toBeGreaterThan(200);
  });
});
