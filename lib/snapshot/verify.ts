/** Reading every byte of a snapshot and comparing it with its digests and checksums. */
import { closeSync } from 'node:fs';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { OnProgress } from '../progress.js';
import { type OpenBlob, openBlob, requireBlobDirectories } from './blobs.js';
import { crc32c } from './crc32c.js';
import { type DigestFile, digestFile, readAt } from './digest.js';
import { corruptError } from './failures.js';
import type { Descriptor } from './format.js';
import { resolve } from './index-file.js';
import { readParts, readState } from './load.js';
import type { MemoryPart } from './memory-index.js';
import type { Reading } from './reading.js';
import { ROUNDS_PER_STEP, type Steps } from './steps.js';

export interface VerifyOptions {
  /** The addon's; without it a slower one in JavaScript. */
  digestFile?: DigestFile;
  signal?: AbortSignal;
  onProgress?: OnProgress;
}

export interface VerifyReport {
  digest: string;
  /** Blobs, bytes and memory chunks that were compared, of this snapshot and its ancestors. */
  blobs: number;
  bytes: number;
  chunks: number;
}

export interface VerifyProblem {
  blob: string;
  problem: string;
  /** Numbers of the chunks that are wrong, when the blob is a memory part. */
  chunks?: number[];
}

interface PartToVerify {
  ref: Descriptor;
  /** What indices say of it. */
  claims: MemoryPart[];
  chunkSize: number;
}

/**
 * Verifies a snapshot. Its manifest, config, state, memory indices and working set are checked as for loading;
 * then all memory. `ERR_SNAPSHOT_CORRUPT` has `details: VerifyProblem[]`, after all was read.
 */
export async function verifySnapshot(
  reading: Reading,
  ref: string,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const { store } = reading;
  requireBlobDirectories(store);
  const found = await readParts(reading, await resolve(reading, ref));
  const { digest, manifest, config, stateRef, layers, workingSet } = found;
  await readState(reading, stateRef, config);
  const parts = uniqueParts(
    layers.flatMap(({ ref: layer, index }) =>
      layer.parts.map((part, i) => ({
        ref: part,
        claims: [index.parts[i] as MemoryPart],
        chunkSize: index.chunkSize,
      })),
    ),
  );
  const total = parts.reduce((sum, { ref: { size } }) => sum + size, 0);
  const small = [
    manifest.config,
    stateRef,
    ...layers.map(({ ref: layer }) => layer.index),
    ...(workingSet ? [workingSet.ref] : []),
  ];
  const report: VerifyReport = {
    digest,
    blobs: 1 + small.length,
    bytes: small.reduce((sum, { size }) => sum + size, 0),
    chunks: 0,
  };
  const problems: VerifyProblem[] = [];
  let done = 0;
  for (const item of parts) {
    throwIfAborted(options.signal);
    const before = done;
    const problem = await verifyPart(reading, item, options, (bytes) => {
      options.onProgress?.(before + bytes, total);
    });
    if (problem) problems.push(problem);
    done += item.ref.size;
    report.blobs += 1;
    report.bytes += item.ref.size;
    report.chunks += item.claims.reduce((sum, { crc32c }) => sum + crc32c.length, 0);
    options.onProgress?.(done, total);
  }
  if (problems.length > 0) throw problemsError(ref, problems);
  return report;
}

/** Parts that several layers share are read once for each size of chunks. */
function uniqueParts(parts: PartToVerify[]): PartToVerify[] {
  const seen = new Map<string, PartToVerify>();
  for (const item of parts) {
    const key = `${item.ref.digest} ${item.ref.size} ${item.chunkSize}`;
    const known = seen.get(key);
    if (known === undefined) seen.set(key, item);
    // An index that is named twice was decoded once.
    else if (!known.claims.some((claim) => item.claims.includes(claim))) {
      known.claims.push(...item.claims);
    }
  }
  return [...seen.values()];
}

async function verifyPart(
  reading: Reading,
  { ref, claims, chunkSize }: PartToVerify,
  options: VerifyOptions,
  progress: (doneBytes: number) => void,
): Promise<VerifyProblem | undefined> {
  let file: OpenBlob;
  try {
    file = openBlob(reading.store, ref, 'memory part');
  } catch (error) {
    if (!(error instanceof KvmsnapError) || !error.code.startsWith('ERR_SNAPSHOT')) throw error;
    return { blob: ref.digest, problem: error.message };
  }
  try {
    const handle = (options.digestFile ?? digestFile)(file.fd, chunkSize, progress);
    const cancel = (): void => handle.cancel();
    options.signal?.addEventListener('abort', cancel, { once: true });
    try {
      const found = await handle.done;
      throwIfAborted(options.signal);
      for (const claim of claims) {
        const problem = await reading.run(comparePart(ref, claim, found));
        if (problem) return problem;
      }
      return undefined;
    } catch (error) {
      throwIfAborted(options.signal);
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', cancel);
    }
  } finally {
    closeSync(file.fd);
  }
}

function* comparePart(
  ref: Descriptor,
  part: MemoryPart,
  found: { sha256: Uint8Array; crc32c: Uint32Array; size: number },
): Steps<VerifyProblem | undefined> {
  const chunks: number[] = [];
  for (let i = 0; i < part.crc32c.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    if (part.crc32c[i] !== found.crc32c[i]) chunks.push(i);
  }
  const digest = `sha256:${Buffer.from(found.sha256).toString('hex')}`;
  if (found.size !== part.size) {
    return { blob: ref.digest, problem: `${found.size} bytes instead of ${part.size}`, chunks };
  }
  if (digest !== ref.digest)
    return { blob: ref.digest, problem: `its bytes have ${digest}`, chunks };
  if (chunks.length > 0) {
    return { blob: ref.digest, problem: 'chunk checksums in the index are wrong', chunks };
  }
  return undefined;
}

/**
 * Compares one chunk of an open memory part with its checksum, so that any page can be checked
 * without reading the rest. `ERR_SNAPSHOT_CORRUPT`; `chunk` counts from 0.
 */
export async function verifyChunk(
  file: OpenBlob,
  part: MemoryPart,
  chunkSize: number,
  chunk: number,
): Promise<Uint8Array> {
  requireArgument(
    Number.isInteger(chunk) && chunk >= 0 && chunk < part.crc32c.length,
    `the part has chunks 0 to ${part.crc32c.length - 1}`,
  );
  const start = chunk * chunkSize;
  const bytes = Buffer.allocUnsafe(Math.min(chunkSize, part.size - start));
  const got = await readAt(file.fd, bytes, start);
  if (got !== bytes.length || crc32c(bytes) !== part.crc32c[chunk]) {
    throw corruptError(file.path, `chunk ${chunk} does not have its checksum`, { chunk });
  }
  return bytes;
}

function problemsError(ref: string, problems: VerifyProblem[]): KvmsnapError {
  const [first] = problems as [VerifyProblem];
  const rest = problems.length > 1 ? ` (and ${problems.length - 1} more blobs)` : '';
  return corruptError(`snapshot ${ref}, blob ${first.blob}`, `${first.problem}${rest}`, problems);
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new KvmsnapError('ERR_ABORTED', 'verification was aborted', { cause: signal.reason });
  }
}
