/** Stores of few bytes that would cost much, each under digests that fit. */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { sha256 } from '../../../lib/snapshot/blobs.js';
import { encodeCbor } from '../../../lib/snapshot/cbor.js';
import {
  MEDIA_TYPE_MEMORY,
  MEDIA_TYPE_MEMORY_INDEX,
  MEDIA_TYPE_WORKING_SET,
} from '../../../lib/snapshot/format.js';
import { type Json, type Pieces, samplePieces, writeStore } from './hostile-store.js';
import { checksums, PAGE } from './samples.js';

export const KiB = 1024;
export const MiB = 1024 * KiB;

/** A store made by hand, to be added to. */
export class CostlyStore {
  readonly path: string;
  readonly manifest: Json;
  readonly config: Json;

  private constructor(pieces: Pieces) {
    this.path = writeStore(pieces);
    const index = this.readIndex();
    this.manifest = JSON.parse(this.read(index.manifests[0].digest).toString());
    this.config = JSON.parse(this.read(this.manifest.config.digest).toString());
  }

  static async make(): Promise<CostlyStore> {
    return new CostlyStore(await samplePieces());
  }

  get state(): Json {
    return this.manifest.layers[0];
  }

  put(mediaType: string, bytes: Uint8Array): Json {
    const digest = sha256(bytes);
    writeFileSync(this.blob(digest), bytes);
    return { mediaType, digest, size: bytes.length };
  }

  /** A blob that is there and has that size; its bytes are not what its name says. */
  putFalse(mediaType: string, size: number): Json {
    const digest = sha256(Buffer.from(`false ${size}`));
    const fd = openSync(this.blob(digest), 'w');
    writeSync(fd, Buffer.alloc(1), 0, 1, size - 1);
    closeSync(fd);
    return { mediaType, digest, size };
  }

  putJson(mediaType: string, value: Json): Json {
    return this.put(
      mediaType,
      Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
    );
  }

  putConfig(change: (config: Json) => void): Json {
    const config = structuredClone(this.config);
    change(config);
    return this.putJson(this.manifest.config.mediaType, config);
  }

  /** A manifest of these layers; gives what an index says of it. */
  putManifest(layers: Json[], more: Json = {}): Json {
    const { mediaType } = this.readIndex().manifests[0];
    return this.putJson(mediaType, { ...this.manifest, layers, ...more });
  }

  /** The index then names these, each by a tag of its own: `t0` and so on. */
  name(manifests: Json[]): void {
    const index = this.readIndex();
    const [{ artifactType }] = index.manifests;
    index.manifests = manifests.map((manifest, i) => ({
      ...manifest,
      artifactType,
      annotations: { 'org.opencontainers.image.ref.name': `t${i}` },
    }));
    writeFileSync(join(this.path, 'index.json'), JSON.stringify(index));
  }

  read(digest: string): Buffer {
    return readFileSync(this.blob(digest));
  }

  private readIndex(): Json {
    return JSON.parse(readFileSync(join(this.path, 'index.json'), 'utf8'));
  }

  private blob(digest: string): string {
    const directory = join(this.path, 'blobs', 'sha256');
    mkdirSync(directory, { recursive: true });
    return join(directory, digest.slice('sha256:'.length));
  }
}

/** A memory index of `count` extents of one page, all from the one place of one part. */
export function indexOf({ gpa, size, count, length = PAGE, part }: Json): Uint8Array {
  const extents = new BigUint64Array(4 * count);
  for (let i = 0; i < count; i++) {
    // Apart, so that none are joined.
    extents[4 * i] = BigInt(gpa + i * 2 * length);
    extents[4 * i + 1] = BigInt(length);
  }
  return encodeCbor({
    format: 'kvmsnap.memory.index',
    version: 1,
    regions: [{ slot: 0, gpa: BigInt(gpa), size: BigInt(size) }],
    chunkSize: 2 * PAGE,
    parts: [{ size: BigInt(part.length), crc32c: new Uint8Array(checksums(part).buffer) }],
    extents: new Uint8Array(extents.buffer),
    zeros: new Uint8Array(),
  });
}

/** Layers of a snapshot that names the same index and part `times`. */
export function layersOf(store: CostlyStore, index: Json, part: Json, times: number): Json[] {
  return [store.state, ...Array.from({ length: times }, () => [index, part]).flat()];
}

export const memoryPart = (store: CostlyStore, bytes: Uint8Array): Json =>
  store.put(MEDIA_TYPE_MEMORY, bytes);
export const memoryIndex = (store: CostlyStore, bytes: Uint8Array): Json =>
  store.put(MEDIA_TYPE_MEMORY_INDEX, bytes);
export const workingSet = (store: CostlyStore, bytes: Uint8Array): Json =>
  store.put(MEDIA_TYPE_WORKING_SET, bytes);
