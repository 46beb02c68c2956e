/** Reading a snapshot to restore it: everything small is read and checked, memory is only opened. */
import { closeSync } from 'node:fs';
import type { PageRun, RawMachineState } from '../native/binding.js';
import {
  type OpenBlob,
  openBlob,
  readBlob,
  requireBlobDirectories,
  requireBlobSize,
} from './blobs.js';
import {
  checkLayer,
  type FlatMemory,
  flattenSteps,
  type LayerRef,
  type PartChecksums,
  splitLayers,
} from './chain.js';
import { requireArchitecture } from './compat.js';
import { configSteps, memoryRegions, type SnapshotConfig } from './config.js';
import type { Extents } from './extents.js';
import { formatError } from './failures.js';
import { type Descriptor, LIMITS, type Manifest } from './format.js';
import { type Resolved, readManifest, resolve } from './index-file.js';
import { requireWithin } from './limits.js';
import { type DecodedIndex, type MemoryRegion, memoryIndexSteps } from './memory-index.js';
import type { Reading } from './reading.js';
import { stateSteps } from './state.js';
import { workingSetSteps } from './working-set.js';

/** A file of memory, with the name of its content and what each part of that should be. */
export interface OpenPart extends OpenBlob {
  digest: string;
  checksums: PartChecksums;
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
export async function readParts(reading: Reading, resolved: Resolved): Promise<SnapshotParts> {
  const manifest = await readManifest(reading, resolved);
  // Config first: it has the versions, and a newer manifest may have layers that are not known here.
  const config = await readConfig(reading, manifest);
  requireArchitecture(config);
  const { state: stateRef, memory, workingSet } = splitLayers(manifest);
  const regions = memoryRegions(config.machine);
  requireIndexBytes(reading, memory);
  const layers: SnapshotParts['layers'] = [];
  for (const ref of memory) {
    const index = await readLayer(reading, ref.index);
    checkLayer(index, ref, regions);
    layers.push({ ref, index });
    await reading.breathe();
  }
  const parts = { digest: resolved.digest, manifest, config, stateRef, layers };
  if (workingSet === undefined) return parts;
  const bytes = await readBlob(reading, workingSet, LIMITS.workingSet, 'working set');
  const runs = await reading.run(workingSetSteps(bytes, regions));
  return { ...parts, workingSet: { ref: workingSet, runs } };
}

/** As often as each is named: each time it is laid over the others again. */
function requireIndexBytes({ limits }: Reading, memory: readonly LayerRef[]): void {
  for (const { index } of memory) requireBlobSize(index, LIMITS.memoryIndex, 'memory index');
  const total = memory.reduce((sum, { index }) => sum + index.size, 0);
  requireWithin(limits, 'indexBytes', total, 'the memory indices of the snapshot have many bytes');
}

async function readLayer(reading: Reading, ref: Descriptor): Promise<DecodedIndex> {
  // Two descriptors may differ in what they say of the size.
  return reading.once('memory index', `${ref.digest} ${ref.size}`, ref.size, async () => {
    const bytes = await readBlob(reading, ref, LIMITS.memoryIndex, 'memory index');
    return reading.run(memoryIndexSteps(bytes));
  });
}

export async function readConfig(reading: Reading, manifest: Manifest): Promise<SnapshotConfig> {
  const { config } = manifest;
  return reading.once('config', `${config.digest} ${config.size}`, config.size, async () =>
    reading.run(configSteps(await readBlob(reading, config, LIMITS.config, 'config'))),
  );
}

/** Reads the state blob and checks that it is of the machine that the config describes. */
export async function readState(
  reading: Reading,
  ref: Descriptor,
  config: SnapshotConfig,
): Promise<RawMachineState> {
  const bytes = await readBlob(reading, ref, LIMITS.state, 'state');
  const state = await reading.run(stateSteps(bytes));
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
export async function loadSnapshot(reading: Reading, ref: string): Promise<LoadedSnapshot> {
  requireBlobDirectories(reading.store);
  const resolved = await resolve(reading, ref);
  const { config, stateRef, layers, workingSet } = await readParts(reading, resolved);
  const state = await readState(reading, stateRef, config);
  const memory = await reading.run(flattenSteps(layers, reading.limits));
  const files = await openParts(reading, memory);
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

async function openParts(
  reading: Reading,
  { files: parts, checksums }: FlatMemory,
): Promise<OpenPart[]> {
  const files: OpenPart[] = [];
  try {
    for (const [i, part] of parts.entries()) {
      const file = openBlob(reading.store, part, 'memory part');
      files.push({ ...file, digest: part.digest, checksums: checksums[i] as PartChecksums });
      await reading.breathe();
    }
    return files;
  } catch (cause) {
    for (const { fd } of files) closeSync(fd);
    throw cause;
  }
}
