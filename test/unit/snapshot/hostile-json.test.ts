import { describe } from 'vitest';
import { itRefuses } from './hostile-attempt.js';
import {
  copyOf,
  type Json,
  onLayer,
  type Pieces,
  type Spoil,
  samplePieces,
  spoilLayer,
  writtenDigest,
} from './hostile-store.js';
import { PAGE } from './samples.js';

const good = await samplePieces();
const digest = await writtenDigest(good);

function withConfig(change: (config: Json) => Json | undefined): Pieces {
  const pieces = copyOf(good);
  const config = JSON.parse(Buffer.from(pieces.config).toString());
  const result = change(config) ?? config;
  pieces.config = Buffer.from(typeof result === 'string' ? result : JSON.stringify(result));
  return pieces;
}

const onEntry = (change: Json): Spoil => ({
  index: (i) => {
    Object.assign(i.manifests[0], change);
    return i;
  },
});

describe('JSON, under a digest that fits, is refused when it is', () => {
  itRefuses({
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
    'config: generation ID outside memory': () =>
      withConfig((c) => {
        const [{ gpa, size }] = c.machine.memory.regions;
        c.machine.generationId = { gpa: gpa + size - 8 };
      }),
    'config: generation ID at an odd address': () =>
      withConfig((c) => {
        c.machine.generationId = { gpa: 4 };
      }),
    'config: generation ID that tells input 24': () =>
      withConfig((c) => {
        c.machine.generationId = { gpa: 0, gsi: 24 };
      }),
    'config: generation ID with more to it': () =>
      withConfig((c) => {
        c.machine.generationId = { gpa: 0, size: 32 };
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
  });
});
