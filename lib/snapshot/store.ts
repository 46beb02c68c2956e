/** A directory of snapshots in OCI image layout. docs/format.md is its specification. */

import { existsSync, linkSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { requireFunction, requireSignal } from '../arguments.js';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { PageRun } from '../native/binding.js';
import { withProgress } from '../progress.js';
import { attachWorkingSet } from './attach.js';
import { blobDirectory, requireBlobDirectories } from './blobs.js';
import { SnapshotWriter } from './commit.js';
import { exposureOf } from './exposure.js';
import { errnoCode, missingError, storeError } from './failures.js';
import { isDigest, isTag, OCI_LAYOUT_VERSION, PRIVATE_DIR } from './format.js';
import { collectGarbage, type GcOptions, type GcResult } from './gc.js';
import {
  checkLayoutFile,
  emptyIndex,
  entriesTagged,
  INDEX_FILE,
  LAYOUT_FILE,
  readIndex,
  readManifest,
  resolve,
  tagOf,
} from './index-file.js';
import { limitsOf, type StoreLimits } from './limits.js';
import { ancestors, listSnapshots, type SnapshotEntry } from './list.js';
import { type LoadedSnapshot, loadSnapshot } from './load.js';
import { sweepLock } from './lock.js';
import { Reading, type ReadOptions } from './reading.js';
import { taggedAs, updateIndex, withEntry } from './update.js';
import { type VerifyOptions, type VerifyReport, verifySnapshot } from './verify.js';
import { ensureDirectory, sweepWorkspaces, Workspace } from './workspace.js';

export interface StoreOptions {
  /** Make the store if the directory is missing or empty. */
  create?: boolean;
  /**
   * Fsync what is written, so that it survives a crash of the system and not only of the process.
   * Default true.
   */
  durable?: boolean;
  /** What each call on it may cost: see {@link StoreLimits} for defaults and reasons. */
  limits?: Partial<StoreLimits>;
}

export class SnapshotStore {
  readonly path: string;
  /** What each call on it may cost. */
  readonly limits: Readonly<StoreLimits>;
  readonly #durable: boolean;

  private constructor(path: string, durable: boolean, limits: StoreLimits) {
    this.path = path;
    this.limits = limits;
    this.#durable = durable;
  }

  /** The same store with other limits where `limits` names them. `ERR_INVALID_ARGUMENT`. */
  withLimits(limits: Partial<StoreLimits>): SnapshotStore {
    return new SnapshotStore(this.path, this.#durable, limitsOf(limits, this.limits));
  }

  /**
   * Opens a store. `ERR_SNAPSHOT_MISSING`: not a store. `ERR_SNAPSHOT_FORMAT`: of an unknown layout.
   * `ERR_STORE`: it cannot be made or read. Also removes what writers that died have left.
   */
  static async open(path: string, options: StoreOptions = {}): Promise<SnapshotStore> {
    requireArgument(
      typeof path === 'string' && path !== '' && !path.includes('\0'),
      'a store is named by the path of a directory',
    );
    const durable = options.durable ?? true;
    const limits = limitsOf(options.limits);
    if (options.create) await create(path, durable);
    checkLayoutFile(path);
    requireBlobDirectories(path);
    sweepWorkspaces(path);
    sweepLock(path);
    return new SnapshotStore(path, durable, limits);
  }

  /**
   * Who else than this user and root can change the store, or put another in its place: a sentence without an end
   * for each file or directory, of the store or on the way to it, that another user owns or may write to; none is
   * good. Opening such a store is not refused, and the command line warns. Access control lists are not looked at.
   */
  exposure(): string[] {
    return exposureOf(this.path);
  }

  /** Starts a snapshot. Its writer must be committed or aborted. `ERR_STORE`. */
  async begin(options: { durable?: boolean } = {}): Promise<SnapshotWriter> {
    return new SnapshotWriter(this.path, options.durable ?? this.#durable, this.limits);
  }

  /** Every snapshot that the index names, damaged ones too. `ERR_ABORTED`, `ERR_STORE`. */
  async list(options: ReadOptions = {}): Promise<SnapshotEntry[]> {
    return listSnapshots(this.#reading(options));
  }

  /** Digest of the snapshot that a tag names. `ERR_SNAPSHOT_MISSING`, `ERR_ABORTED`. */
  async resolve(ref: string, options: ReadOptions = {}): Promise<string> {
    return (await resolve(this.#reading(options), ref)).digest;
  }

  /**
   * Reads a snapshot by tag or `sha256:` digest, to restore it. Memory is opened, not read.
   * `ERR_SNAPSHOT_MISSING`, `ERR_SNAPSHOT_FORMAT`, `ERR_SNAPSHOT_CORRUPT`,
   * `ERR_SNAPSHOT_INCOMPATIBLE` (architecture), `ERR_SNAPSHOT_LIMIT`, `ERR_STORE`, `ERR_ABORTED`.
   */
  async load(ref: string, options: ReadOptions = {}): Promise<LoadedSnapshot> {
    return loadSnapshot(this.#reading(options), ref);
  }

  /** Digests of the snapshots that this one was taken against, nearest first, as far as they exist. */
  async ancestors(ref: string, options: ReadOptions = {}): Promise<string[]> {
    return ancestors(this.#reading(options), ref);
  }

  /** Reads every byte and compares it with its digests. `ERR_SNAPSHOT_CORRUPT`. */
  async verify(ref: string, options: VerifyOptions = {}): Promise<VerifyReport> {
    requireSignal(options.signal);
    requireFunction(options.onProgress, 'onProgress');
    return withProgress(options, async ({ report, signal, settle }) => {
      const verified = await verifySnapshot(this.#reading({ ...options, signal }), ref, {
        ...options,
        onProgress: report,
        signal,
      });
      await settle();
      return verified;
    });
  }

  /** Adds a working set: see `Snapshot.addWorkingSet`. Gives the digest of the snapshot that has it. */
  async addWorkingSet(
    ref: string,
    runs: readonly PageRun[],
    options: { tag?: string; durable?: boolean; signal?: AbortSignal } = {},
  ): Promise<string> {
    const { tag, durable = this.#durable } = options;
    requireArgument(tag === undefined || isTag(tag), `${JSON.stringify(tag)} is no tag`);
    const reading = this.#reading(options);
    const { digest } = await resolve(reading, ref);
    return attachWorkingSet(reading, { digest, runs, durable, ...(tag ? { tag } : {}) });
  }

  /** Gives a snapshot a tag, also one that another snapshot has, which then loses it. */
  async tag(ref: string, tag: string, options: ReadOptions = {}): Promise<void> {
    requireArgument(isTag(tag), `${JSON.stringify(tag)} is no tag`);
    const reading = this.#reading(options);
    await updateIndex(reading, this.#durable, `tagging ${ref}`, async (index) => {
      const resolved = await resolve(reading, ref);
      await readManifest(reading, resolved);
      const entry = index.manifests.find(({ digest }) => digest === resolved.digest);
      if (!entry) throw missingError(`${ref} is not in the index of ${this.path}`);
      return withEntry(index, taggedAs(entry, tag));
    });
  }

  /**
   * Removes a tag, or with a digest all names of a snapshot. Snapshots taken against it stay whole.
   * Bytes are freed by {@link gc}.
   */
  async delete(ref: string, options: ReadOptions = {}): Promise<void> {
    await updateIndex(this.#reading(options), this.#durable, `deleting ${ref}`, (index) => {
      const gone = isDigest(ref)
        ? index.manifests.filter(({ digest }) => digest === ref)
        : entriesTagged(index, ref, this.path);
      if (gone.length === 0) throw missingError(`no snapshot is named ${ref} in ${this.path}`);
      const names = new Set(gone);
      return { ...index, manifests: index.manifests.filter((entry) => !names.has(entry)) };
    });
  }

  /** Removes blobs that nothing in the index needs. */
  async gc(options: GcOptions = {}): Promise<GcResult> {
    return collectGarbage(this.#reading(options), options);
  }

  /** Tags in use, in the order of the index. */
  async tags(options: ReadOptions = {}): Promise<string[]> {
    const { manifests } = await readIndex(this.#reading(options));
    return manifests.map(tagOf).filter((tag) => tag !== undefined);
  }

  #reading({ signal }: ReadOptions): Reading {
    return new Reading(this.path, this.limits, { signal });
  }
}

const OWN_NAMES = [LAYOUT_FILE, INDEX_FILE, 'blobs', PRIVATE_DIR];

/** Makes a store, also when another process is making it: each file is put there whole, once. */
async function create(path: string, durable: boolean): Promise<void> {
  let workspace: Workspace | undefined;
  try {
    if (existsSync(join(path, LAYOUT_FILE))) return;
    makeDirectory(path);
    const foreign = readdirSync(path).find((name) => !OWN_NAMES.includes(name));
    if (foreign !== undefined) {
      throw new KvmsnapError(
        'ERR_STORE',
        `${path} holds other files (${foreign}) and is no snapshot store: choose a new directory`,
      );
    }
    workspace = new Workspace(path);
    ensureDirectory(join(path, 'blobs'));
    ensureDirectory(blobDirectory(path));
    const files = [
      [INDEX_FILE, emptyIndex()],
      // Last: a directory with this file is a store.
      [LAYOUT_FILE, { imageLayoutVersion: OCI_LAYOUT_VERSION }],
    ] as const;
    for (const [name, content] of files) {
      const bytes = Buffer.from(`${JSON.stringify(content)}\n`);
      linkOnce(await workspace.write(name, bytes, durable), join(path, name));
    }
  } catch (cause) {
    throw storeError(`making a snapshot store in ${path}`, cause);
  } finally {
    await workspace?.remove().catch(() => undefined);
  }
}

function makeDirectory(path: string): void {
  // Not `recursive`: that gives ENOENT for a read-only file system, and never returns where a
  // directory cannot be made though its parent is there (/proc).
  const make = (): void => {
    try {
      mkdirSync(path, { mode: 0o700 });
    } catch (error) {
      if (errnoCode(error) !== 'EEXIST') throw error;
    }
  };
  try {
    make();
  } catch (error) {
    const parent = dirname(path);
    if (errnoCode(error) !== 'ENOENT' || parent === path) throw error;
    if (!existsSync(parent)) makeDirectory(parent);
    make();
  }
}

function linkOnce(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST') throw error;
  }
}
