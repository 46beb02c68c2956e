/**
 * Writing a snapshot. Memory parts and small blobs are written in a workspace inside the store, then
 * under the lock: blobs are renamed into place, and `index.json` is replaced by rename. That rename
 * is the commit: before it the store is as it was, after it the snapshot is there whole.
 */
import { closeSync, fstatSync, openSync } from 'node:fs';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { NativeImageWritten, PageRun, RawMachineState } from '../native/binding.js';
import { requireBlobDirectories, sha256 } from './blobs.js';
import { splitLayers } from './chain.js';
import {
  encodeConfig,
  type MachineDescription,
  memoryRegions,
  type SnapshotConfig,
  type SnapshotConfigInput,
} from './config.js';
import { storeError } from './failures.js';
import {
  ANNOTATION_CREATED,
  ARTIFACT_TYPE,
  type Descriptor,
  isTag,
  LIMITS,
  MEDIA_TYPE_CONFIG,
  MEDIA_TYPE_MEMORY,
  MEDIA_TYPE_MEMORY_INDEX,
  MEDIA_TYPE_OCI_MANIFEST,
  MEDIA_TYPE_STATE,
  MEDIA_TYPE_WORKING_SET,
} from './format.js';
import { readManifest } from './index-file.js';
import type { StoreLimits } from './limits.js';
import { readConfig } from './load.js';
import { encodeManifest } from './manifest.js';
import { encodeMemoryIndex } from './memory-index.js';
import { product } from './product.js';
import { type PendingBlob, publish, throwIfAborted } from './publish.js';
import { Reading } from './reading.js';
import { encodeState } from './state.js';
import { taggedAs } from './update.js';
import { encodeWorkingSet } from './working-set.js';
import { Workspace } from './workspace.js';

/** The memory of a new snapshot: what `NativeImage.write` gave, or one layer of it. */
export interface MemoryWritten extends NativeImageWritten {
  /** Must be those of the machine description; checked when given. */
  regions?: { gpa: bigint; size: number }[];
}

export interface CommitInput {
  /** Without a tag the snapshot is found by its digest. A tag in use moves to the new snapshot. */
  tag?: string;
  config: SnapshotConfigInput;
  state: RawMachineState;
  memory: MemoryWritten;
  /** `memory` then holds only what changed since that snapshot, which must be in this store. */
  parentDigest?: string;
  /** Pages that a restore on demand is to fetch first, in order. */
  workingSet?: readonly PageRun[];
  signal?: AbortSignal;
}

export interface CommittedSnapshot {
  digest: string;
  tag?: string;
  /** Bytes written, memory parts included. */
  bytes: number;
  config: SnapshotConfig;
}

export class SnapshotWriter implements AsyncDisposable {
  readonly #workspace: Workspace;
  readonly #durable: boolean;
  readonly #limits: StoreLimits;
  readonly #parts: { fd: number; path: string }[] = [];
  #status: 'open' | 'committing' | 'done' = 'open';

  /** `SnapshotStore.begin` makes one. */
  constructor(store: string, durable: boolean, limits: StoreLimits) {
    try {
      requireBlobDirectories(store);
      this.#workspace = new Workspace(store);
    } catch (cause) {
      throw storeError(`writing to the store ${store}`, cause);
    }
    this.#durable = durable;
    this.#limits = limits;
  }

  /** Fsync blobs and names, so that the snapshot survives a crash of the system. */
  get durable(): boolean {
    return this.#durable;
  }

  /** The directory of the store. */
  get store(): string {
    return this.#workspace.store;
  }

  /**
   * Throws what {@link commit} would for this parent: `ERR_INVALID_ARGUMENT`, `ERR_SNAPSHOT_MISSING`,
   * `ERR_SNAPSHOT_FORMAT`, `ERR_SNAPSHOT_CORRUPT`.
   */
  async requireParent(digest: string, machine: MachineDescription): Promise<void> {
    await this.#inherit(digest, machine);
  }

  /**
   * Makes `count` empty files for memory parts and gives their descriptors, open for reading and
   * writing. They are the writer's: `commit` and `abort` close them. `ERR_STORE`.
   */
  openParts(count: number): number[] {
    this.#requireOpen();
    requireArgument(
      Number.isInteger(count) && count >= 0 && count <= LIMITS.memoryParts,
      `a snapshot has 0 to ${LIMITS.memoryParts} memory parts: write larger parts`,
    );
    const first = this.#parts.length;
    try {
      for (let i = first; i < first + count; i++) {
        const path = this.#workspace.file(`part-${i}`);
        this.#parts.push({ path, fd: openSync(path, 'wx+', 0o600) });
      }
    } catch (cause) {
      throw storeError('creating files for memory', cause);
    }
    return this.#parts.slice(first).map(({ fd }) => fd);
  }

  /**
   * Puts the snapshot into the store, whole or not at all. Also ends the writer: on an error the
   * store is as it was and every temporary file is gone.
   *
   * `ERR_INVALID_ARGUMENT`: what was given cannot be a snapshot. `ERR_SNAPSHOT_MISSING`: the parent
   * is not there. `ERR_STORE`: a system call failed. `ERR_ABORTED`: the signal fired in time.
   */
  async commit(input: CommitInput): Promise<CommittedSnapshot> {
    this.#requireOpen();
    this.#status = 'committing';
    try {
      return await this.#commit(input);
    } catch (cause) {
      throw storeError('committing the snapshot', cause);
    } finally {
      await this.#end();
    }
  }

  /** Drops everything written. Idempotent, and harmless after `commit`. */
  async abort(): Promise<void> {
    if (this.#status === 'open') await this.#end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort();
  }

  async #commit(input: CommitInput): Promise<CommittedSnapshot> {
    const { tag, signal } = input;
    requireArgument(
      tag === undefined || isTag(tag),
      `${JSON.stringify(tag)} is no tag: letters and digits, with - . _ between them, at most 128`,
    );
    throwIfAborted(signal);
    const parent = input.parentDigest ?? null;
    const { config, bytes } = encodeConfig(input.config, product(), parent);
    const inherited = parent === null ? [] : await this.#inherit(parent, config.machine, signal);

    const workingSet =
      input.workingSet === undefined
        ? []
        : [
            await this.#writeBlob(
              MEDIA_TYPE_WORKING_SET,
              encodeWorkingSet(input.workingSet, memoryRegions(config.machine)),
            ),
          ];
    const parts = this.#checkParts(input.memory);
    const small = [
      await this.#writeBlob(MEDIA_TYPE_CONFIG, bytes),
      await this.#writeBlob(MEDIA_TYPE_STATE, encodeState(input.state)),
      await this.#writeBlob(MEDIA_TYPE_MEMORY_INDEX, encodeMemory(input.memory, config)),
    ] as const;
    const [configRef, stateRef, indexRef] = small.map(({ ref }) => ref) as [
      Descriptor,
      Descriptor,
      Descriptor,
    ];
    const manifest = await this.#writeBlob(
      MEDIA_TYPE_OCI_MANIFEST,
      encodeManifest({
        schemaVersion: 2,
        mediaType: MEDIA_TYPE_OCI_MANIFEST,
        artifactType: ARTIFACT_TYPE,
        config: { ...configRef, mediaType: MEDIA_TYPE_CONFIG },
        layers: [
          stateRef,
          ...inherited,
          indexRef,
          ...[...parts, ...workingSet].map(({ ref }) => ref),
        ],
        annotations: { [ANNOTATION_CREATED]: config.created },
      }),
    );
    const entry = {
      ...manifest.ref,
      artifactType: ARTIFACT_TYPE,
      annotations: { [ANNOTATION_CREATED]: config.created },
    };
    const blobs = [...parts, ...workingSet, ...small, manifest];
    await publish(this.#workspace, this.#limits, {
      blobs,
      inherited,
      entry: tag === undefined ? entry : taggedAs(entry, tag),
      durable: this.#durable,
      ...(signal ? { signal } : {}),
    });
    return {
      digest: manifest.ref.digest,
      ...(tag === undefined ? {} : { tag }),
      bytes: blobs.reduce((sum, { ref }) => sum + ref.size, 0),
      config,
    };
  }

  /** Memory layers of the parent, oldest first. */
  async #inherit(
    parent: string,
    machine: MachineDescription,
    signal?: AbortSignal,
  ): Promise<Descriptor[]> {
    const reading = new Reading(this.#workspace.store, this.#limits, { signal });
    const manifest = await readManifest(reading, { digest: parent });
    const { memory: layers } = splitLayers(manifest);
    const config = await readConfig(reading, manifest);
    const regions = [...machine.memory.regions].sort((a, b) => a.gpa - b.gpa);
    requireArgument(
      JSON.stringify(memoryKey(config.machine.memory.regions)) ===
        JSON.stringify(memoryKey(regions)),
      'the parent has other memory regions: take a full snapshot',
    );
    requireArgument(
      layers.length < LIMITS.memoryLayers,
      `the parent has ${layers.length} memory layers already: flatten it, or take a full snapshot`,
    );
    return layers.flatMap(({ index, parts }) => [index, ...parts]);
  }

  #checkParts({ parts }: MemoryWritten): PendingBlob[] {
    requireArgument(
      parts.length === this.#parts.length,
      `${this.#parts.length} memory parts were opened, ${parts.length} were written`,
    );
    return this.#parts.map(({ fd, path }, i) => {
      const { sha256: hash, size } = parts[i] as (typeof parts)[number];
      const found = fstatSync(fd).size;
      requireArgument(
        found === size,
        `memory part ${i} should have ${size} bytes and has ${found}`,
      );
      const digest = `sha256:${Buffer.from(hash).toString('hex')}`;
      return { path, ref: { mediaType: MEDIA_TYPE_MEMORY, digest, size } };
    });
  }

  async #writeBlob(mediaType: string, bytes: Uint8Array): Promise<PendingBlob> {
    const digest = sha256(bytes);
    const path = await this.#workspace.write(digest.replace(':', '-'), bytes, this.#durable);
    return { path, ref: { mediaType, digest, size: bytes.length } };
  }

  async #end(): Promise<void> {
    this.#status = 'done';
    for (const { fd } of this.#parts.splice(0)) closeSync(fd);
    // What cannot be removed now is swept when the store is next opened after this process ended.
    await this.#workspace.remove().catch(() => undefined);
  }

  #requireOpen(): void {
    if (this.#status !== 'open') {
      throw new KvmsnapError('ERR_CLOSED', 'this writer has ended: begin another');
    }
  }
}

function encodeMemory(memory: MemoryWritten, { machine }: SnapshotConfig): Uint8Array {
  const regions = memoryRegions(machine);
  const given = memory.regions ?? regions;
  requireArgument(
    given.length === regions.length &&
      regions.every(({ gpa, size }) => given.some((g) => g.gpa === gpa && g.size === size)),
    'the memory written does not have the regions of the machine',
  );
  return encodeMemoryIndex({
    regions,
    chunkSize: memory.chunkSize,
    parts: memory.parts.map(({ size }, i) => ({
      size,
      crc32c: memory.crc32c[i] ?? new Uint32Array(),
    })),
    extents: memory.extents.map(({ gpa, length, file, offset }) => ({
      gpa,
      length,
      part: file,
      offset,
    })),
    zeros: memory.zeros,
  });
}

const memoryKey = (regions: MachineDescription['memory']['regions']): number[][] =>
  regions.map(({ slot, gpa, size }) => [slot, gpa, size]);
