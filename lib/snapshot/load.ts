/** Reading a snapshot to restore it: everything small is read and checked, memory is only opened. */
import { closeSync } from 'node:fs';
import type { PageRun, RawMachineState } from '../native/binding.js';
import { type OpenBlob, openBlob, readBlob, requireBlobDirectories } from './blobs.js';
import { checkLayer, flatten, type LayerRef, splitLayers } from './chain.js';
import { requireArchitecture } from './compat.js';
import { decodeConfig, memoryRegions, type SnapshotConfig } from './config.js';
import type { Extents } from './extents.js';
import { formatError } from './failures.js';
import { type Descriptor, LIMITS, type Manifest } from './format.js';
import { type Resolved, readManifest, resolve } from './index-file.js';
import { type DecodedIndex, decodeMemoryIndex, type MemoryRegion } from './memory-index.js';
import { decodeState } from './state.js';
import { decodeWorkingSet } from './working-set.js';

/** A file of memory, with the name of its content. */
export interface OpenPart extends OpenBlob {
  digest: string;
}

/** A snapshot ready to restore. Whoever loaded it closes it; mappings of its files outlive that. */
export interface LoadedSnapshot extends Disposable {
  /** Of the manifest: the name that no other snapshot has. */
  readonly digest: string;
  /** The tag it was asked for by. */
  readonly tag?: string;
  readonly config: SnapshotConfig;
  readonly state: RawMachineState;
  readonly regions: MemoryRegion[];
  /** In order of gpa, not overlapping, inside regions and files. What none names is zero. */
  readonly extents: Extents;
  /** In the order of first touch. */
  readonly workingSet?: PageRun[];
  /** Open for reading. Numbered by `extents[].file`. */
  readonly files: OpenPart[];
  /** Digests of all memory parts of the snapshots that it was taken against, used or not. */
  readonly lineage: string[];
  /** Closes the files. Idempotent. */
  close(): void;
}

/** What a manifest says, without its memory parts. */
export interface SnapshotParts {
  digest: string;
  manifest: Manifest;
  config: SnapshotConfig;
  stateRef: Descriptor;
  layers: { ref: LayerRef; index: DecodedIndex }[];
  workingSet?: { ref: Descriptor; runs: PageRun[] };
}

/** Reads manifest, config, memory indices and working set, and checks that they agree. */
export function readParts(store: string, resolved: Resolved): SnapshotParts {
  const manifest = readManifest(store, resolved);
  // Config first: it has the versions, and a newer manifest may have layers that are not known here.
  const config = readConfig(store, manifest);
  requireArchitecture(config);
  const { state: stateRef, memory, workingSet } = splitLayers(manifest);
  const regions = memoryRegions(config.machine);
  const layers = memory.map((ref) => {
    const bytes = readBlob(store, ref.index, LIMITS.memoryIndex, 'memory index');
    const index = decodeMemoryIndex(bytes);
    checkLayer(index, ref, regions);
    return { ref, index };
  });
  const parts = { digest: resolved.digest, manifest, config, stateRef, layers };
  if (workingSet === undefined) return parts;
  const bytes = readBlob(store, workingSet, LIMITS.workingSet, 'working set');
  return { ...parts, workingSet: { ref: workingSet, runs: decodeWorkingSet(bytes, regions) } };
}

export function readConfig(store: string, manifest: Manifest): SnapshotConfig {
  return decodeConfig(readBlob(store, manifest.config, LIMITS.config, 'config'));
}

/** Reads the state blob and checks that it is of the machine that the config describes. */
export function readState(store: string, ref: Descriptor, config: SnapshotConfig): RawMachineState {
  const state = decodeState(readBlob(store, ref, LIMITS.state, 'state'));
  const { vcpus, irqchip } = config.machine;
  if (state.vcpus.length !== vcpus) {
    throw formatError('state', `${state.vcpus.length} vCPUs, where the config has ${vcpus}`);
  }
  const { pic_master, pic_slave, ioapic, pit2 } = state.vm;
  const chips = [pic_master, pic_slave, ioapic, pit2, ...state.vcpus.map(({ lapic }) => lapic)];
  if (chips.some((chip) => (chip !== undefined) !== irqchip)) {
    throw formatError('state', `interrupt controllers do not match irqchip: ${irqchip}`);
  }
  return state;
}

/** Loads by tag or digest. Nothing of guest memory is read: its files are opened. */
export function loadSnapshot(store: string, ref: string): LoadedSnapshot {
  requireBlobDirectories(store);
  const resolved = resolve(store, ref);
  const { config, stateRef, layers, workingSet } = readParts(store, resolved);
  const state = readState(store, stateRef, config);
  const memory = flatten(layers);
  const files = openParts(store, memory.files);
  const close = (): void => {
    for (const { fd } of files.splice(0)) closeSync(fd);
  };
  return {
    digest: resolved.digest,
    ...(resolved.tag === undefined ? {} : { tag: resolved.tag }),
    config,
    state,
    regions: memoryRegions(config.machine),
    extents: memory.extents,
    ...(workingSet ? { workingSet: workingSet.runs } : {}),
    files,
    lineage: layers.flatMap(({ ref }) => ref.parts.map(({ digest }) => digest)),
    close,
    [Symbol.dispose]: close,
  };
}

function openParts(store: string, parts: Descriptor[]): OpenPart[] {
  const files: OpenPart[] = [];
  try {
    for (const part of parts) {
      files.push({ ...openBlob(store, part, 'memory part'), digest: part.digest });
    }
    return files;
  } catch (cause) {
    for (const { fd } of files) closeSync(fd);
    throw cause;
  }
}
