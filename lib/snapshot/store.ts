/** A directory of snapshots in OCI image layout. docs/format.md is its specification. */
import { existsSync, linkSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { PageRun } from '../native/binding.js';
import { attachWorkingSet } from './attach.js';
import { blobDirectory, requireBlobDirectories } from './blobs.js';
import { SnapshotWriter } from './commit.js';
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
import { ancestors, listSnapshots, type SnapshotEntry } from './list.js';
import { type LoadedSnapshot, loadSnapshot } from './load.js';
import { sweepLock } from './lock.js';
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
}

export class SnapshotStore {
  readonly path: string;
  readonly #durable: boolean;

  private constructor(path: string, durable: boolean) {
    this.path = path;
    this.#durable = durable;
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
    if (options.create) await create(path, durable);
    checkLayoutFile(path);
    requireBlobDirectories(path);
    sweepWorkspaces(path);
    sweepLock(path);
    return new SnapshotStore(path, durable);
  }

  /** Starts a snapshot. Its writer must be committed or aborted. `ERR_STORE`. */
  async begin(options: { durable?: boolean } = {}): Promise<SnapshotWriter> {
    return new SnapshotWriter(this.path, options.durable ?? this.#durable);
  }

  /** Every snapshot that the index names, damaged ones too. */
  async list(): Promise<SnapshotEntry[]> {
    return listSnapshots(this.path);
  }

  /** Digest of the snapshot that a tag names. `ERR_SNAPSHOT_MISSING`. */
  async resolve(ref: string): Promise<string> {
    return resolve(this.path, ref).digest;
  }

  /**
   * Reads a snapshot by tag or `sha256:` digest, to restore it. Memory is opened, not read.
   * `ERR_SNAPSHOT_MISSING`, `ERR_SNAPSHOT_FORMAT`, `ERR_SNAPSHOT_CORRUPT`,
   * `ERR_SNAPSHOT_INCOMPATIBLE` (architecture), `ERR_STORE`.
   */
  async load(ref: string): Promise<LoadedSnapshot> {
    return loadSnapshot(this.path, ref);
  }

  /** Digests of the snapshots that this one was taken against, nearest first, as far as they exist. */
  async ancestors(ref: string): Promise<string[]> {
    return ancestors(this.path, ref);
  }

  /** Reads every byte and compares it with its digests. `ERR_SNAPSHOT_CORRUPT`. */
  async verify(ref: string, options: VerifyOptions = {}): Promise<VerifyReport> {
    return verifySnapshot(this.path, ref, options);
  }

  /** Adds a working set: see `Snapshot.addWorkingSet`. Gives the digest of the snapshot that has it. */
  async addWorkingSet(
    ref: string,
    runs: readonly PageRun[],
    options: { tag?: string; durable?: boolean } = {},
  ): Promise<string> {
    const { tag, durable = this.#durable } = options;
    requireArgument(tag === undefined || isTag(tag), `${JSON.stringify(tag)} is no tag`);
    const { digest } = resolve(this.path, ref);
    return attachWorkingSet(this.path, { digest, runs, durable, ...(tag ? { tag } : {}) });
  }

  /** Gives a snapshot a tag, also one that another snapshot has, which then loses it. */
  async tag(ref: string, tag: string): Promise<void> {
    requireArgument(isTag(tag), `${JSON.stringify(tag)} is no tag`);
    await updateIndex(this.path, this.#durable, `tagging ${ref}`, (index) => {
      const resolved = resolve(this.path, ref);
      readManifest(this.path, resolved);
      const entry = index.manifests.find(({ digest }) => digest === resolved.digest);
      if (!entry) throw missingError(`${ref} is not in the index of ${this.path}`);
      return withEntry(index, taggedAs(entry, tag));
    });
  }

  /**
   * Removes a tag, or with a digest all names of a snapshot. Snapshots taken against it stay whole.
   * Bytes are freed by {@link gc}.
   */
  async delete(ref: string): Promise<void> {
    await updateIndex(this.path, this.#durable, `deleting ${ref}`, (index) => {
      const gone = isDigest(ref)
        ? index.manifests.filter(({ digest }) => digest === ref)
        : entriesTagged(index, ref, this.path);
      if (gone.length === 0) throw missingError(`no snapshot is named ${ref} in ${this.path}`);
      return { ...index, manifests: index.manifests.filter((entry) => !gone.includes(entry)) };
    });
  }

  /** Removes blobs that nothing in the index needs. */
  async gc(options: GcOptions = {}): Promise<GcResult> {
    return collectGarbage(this.path, options);
  }

  /** Tags in use, in the order of the index. */
  async tags(): Promise<string[]> {
    return readIndex(this.path)
      .manifests.map(tagOf)
      .filter((tag) => tag !== undefined);
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
