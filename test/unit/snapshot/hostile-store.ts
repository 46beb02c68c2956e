/** A store taken apart, to be put together wrong: digests and sizes are made to fit again. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../../../lib/snapshot/blobs.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { addSample } from './samples.js';
import { scratch } from './scratch.js';

/** JSON that tests tear apart. */
// biome-ignore lint/suspicious/noExplicitAny: hostile on purpose
export type Json = any;

/** Every byte of a store with one increment over one full snapshot, tagged `sample`. */
export interface Pieces {
  layout: Buffer;
  index: Json;
  manifest: Json;
  /** Blobs by what they are. `layers[0]` is the state. */
  config: Buffer;
  layers: Buffer[];
}

export async function samplePieces(): Promise<Pieces> {
  const dir = join(scratch(), 'store');
  const store = await SnapshotStore.open(dir, { create: true, durable: false });
  const base = await addSample(store, { tag: 'base', pages: { 0: 1, 1: 2, 2: 3, 9: 4, 40: 5 } });
  await addSample(store, { pages: { 1: 9, 10: 8 }, zeros: [2], parentDigest: base.digest });
  await store.delete('base');
  const blob = (digest: string): Buffer =>
    readFileSync(join(dir, 'blobs', digest.replace(':', '/')));
  const index = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8'));
  const manifest = JSON.parse(blob(index.manifests[0].digest).toString());
  return {
    layout: readFileSync(join(dir, 'oci-layout')),
    index,
    manifest,
    config: blob(manifest.config.digest),
    layers: manifest.layers.map(({ digest }: Json) => blob(digest)),
  };
}

export const copyOf = (pieces: Pieces): Pieces => structuredClone(pieces);

/** What to spoil after digests and sizes were made to fit. Text is written as it is. */
export interface Spoil {
  manifest?: (manifest: Json) => Json;
  index?: (index: Json) => Json;
}

const text = (value: Json): Buffer =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));

/** Writes the pieces as a store, with digests and sizes that fit. */
export function writeStore(pieces: Pieces, spoil: Spoil = {}): string {
  const dir = join(scratch(), 'store');
  const sha = join(dir, 'blobs', 'sha256');
  mkdirSync(sha, { recursive: true });
  const put = (bytes: Uint8Array): { digest: string; size: number } => {
    const digest = sha256(bytes);
    writeFileSync(join(sha, digest.slice(7)), bytes);
    return { digest, size: bytes.length };
  };
  const manifest = structuredClone(pieces.manifest);
  Object.assign(manifest.config, put(Buffer.from(pieces.config)));
  pieces.layers.forEach((bytes, i) => {
    Object.assign(manifest.layers[i], put(Buffer.from(bytes)));
  });
  const spoilt = put(text(spoil.manifest ? spoil.manifest(manifest) : manifest));
  const index = structuredClone(pieces.index);
  Object.assign(index.manifests[0], spoilt);
  writeFileSync(join(dir, 'index.json'), text(spoil.index ? spoil.index(index) : index));
  writeFileSync(join(dir, 'oci-layout'), pieces.layout);
  return dir;
}

/** The digest that the manifest has when the pieces are written. */
export async function writtenDigest(pieces: Pieces): Promise<string> {
  return (await SnapshotStore.open(writeStore(pieces))).resolve('sample');
}

/** Where things are in `layers` of the sample. */
export const STATE = 0;
export const INDEX = 1;
export const LAST_INDEX = 4;

export function spoilLayer(manifest: Json, layer: number, change: Json): Json {
  Object.assign(manifest.layers[layer], change);
  return manifest;
}

export const onLayer = (layer: number, change: Json): Spoil => ({
  manifest: (m) => spoilLayer(m, layer, change),
});
