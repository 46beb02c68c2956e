/**
 * The working set of a snapshot: pages in the order in which a machine made from it first touched them,
 * for a restore that fetches those first. docs/format.md, "Working set".
 */
import { requireArgument } from '../errors.js';
import type { PageRun } from '../native/binding.js';
import { PAGE_SIZE } from '../units.js';
import { cborSteps, encodeCbor, isMap } from './cbor.js';
import { formatError, versionError } from './failures.js';
import { LAYOUT_VERSION, LIMITS } from './format.js';
import type { MemoryRegion } from './memory-index.js';
import { finish, ROUNDS_PER_STEP, type Steps } from './steps.js';

const FORMAT = 'kvmsnap.memory.workingset';
const WHAT = 'working set';
/** u64 gpa, u64 length; little-endian. */
const RUN_BYTES = 16;
const PAGE = BigInt(PAGE_SIZE);

/** Working set to bytes. `ERR_INVALID_ARGUMENT` when it breaks a rule of the format. */
export function encodeWorkingSet(
  runs: readonly PageRun[],
  regions: readonly Pick<MemoryRegion, 'gpa' | 'size'>[],
): Uint8Array {
  requireWorkingSet(runs, regions);
  const view = new DataView(new ArrayBuffer(runs.length * RUN_BYTES));
  runs.forEach(({ gpa, count }, i) => {
    view.setBigUint64(i * RUN_BYTES, gpa, true);
    view.setBigUint64(i * RUN_BYTES + 8, BigInt(count) * PAGE, true);
  });
  return encodeCbor({
    format: FORMAT,
    version: LAYOUT_VERSION,
    runs: new Uint8Array(view.buffer),
  });
}

/** Bytes to working set; `ERR_SNAPSHOT_FORMAT` for anything that breaks a rule of the format. */
export function decodeWorkingSet(
  bytes: Uint8Array,
  regions: readonly Pick<MemoryRegion, 'gpa' | 'size'>[],
): PageRun[] {
  return finish(workingSetSteps(bytes, regions));
}

export function* workingSetSteps(
  bytes: Uint8Array,
  regions: readonly Pick<MemoryRegion, 'gpa' | 'size'>[],
): Steps<PageRun[]> {
  const root = yield* cborSteps(bytes, WHAT);
  if (!isMap(root) || root.format !== FORMAT) throw formatError(WHAT, `format is not ${FORMAT}`);
  const { version, runs: packed } = root;
  if (typeof version !== 'number' || version < 1) throw formatError(WHAT, 'it has no version');
  if (version > LAYOUT_VERSION) throw versionError(WHAT, version, LAYOUT_VERSION);
  for (const key in root) {
    if (!['format', 'version', 'runs'].includes(key)) {
      throw formatError(WHAT, `unknown key ${JSON.stringify(key).slice(0, 80)}`);
    }
  }
  if (!(packed instanceof Uint8Array) || packed.length % RUN_BYTES !== 0) {
    throw formatError(WHAT, `runs is not a byte string of ${RUN_BYTES}-byte records`);
  }
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  if (packed.length / RUN_BYTES > LIMITS.workingSetRuns) {
    throw formatError(
      WHAT,
      `${packed.length / RUN_BYTES} runs, more than ${LIMITS.workingSetRuns}`,
    );
  }
  const runs: PageRun[] = [];
  for (let at = 0; at < packed.length; at += RUN_BYTES) {
    if (at % (ROUNDS_PER_STEP * RUN_BYTES) === 0) yield;
    const length = view.getBigUint64(at + 8, true);
    if (length % PAGE !== 0n || length > BigInt(LIMITS.guestAddress)) {
      throw formatError(WHAT, 'a run is not of whole pages');
    }
    runs.push({ gpa: view.getBigUint64(at, true), count: Number(length / PAGE) });
  }
  const problem = yield* problemOf(runs, regions);
  if (problem !== undefined) throw formatError(WHAT, problem);
  return runs;
}

/** `ERR_INVALID_ARGUMENT` unless it could stand in a snapshot of a machine with that memory. */
export function requireWorkingSet(
  runs: readonly PageRun[],
  regions: readonly Pick<MemoryRegion, 'gpa' | 'size'>[],
): void {
  const isList =
    Array.isArray(runs) &&
    runs.every((run) => typeof run?.gpa === 'bigint' && Number.isInteger(run.count));
  requireArgument(isList, 'a working set is a list of { gpa: bigint, count: pages }');
  const problem = finish(problemOf(runs, regions));
  requireArgument(problem === undefined, `the working set is of no use here: ${problem}`);
}

const byGpa = (a: PageRun, b: PageRun): number => (a.gpa < b.gpa ? -1 : a.gpa > b.gpa ? 1 : 0);

/** Sorts blocks, then merges them in pairs: a million runs take most of a second. */
function* inOrderOfGpa(runs: readonly PageRun[]): Steps<PageRun[]> {
  let sorted: PageRun[] = [];
  for (let start = 0; start < runs.length; start += ROUNDS_PER_STEP) {
    for (const run of runs.slice(start, start + ROUNDS_PER_STEP).sort(byGpa)) sorted.push(run);
    yield;
  }
  for (let width = ROUNDS_PER_STEP; width < sorted.length; width *= 2) {
    const merged: PageRun[] = [];
    for (let start = 0; start < sorted.length; start += 2 * width) {
      yield* merge(sorted, start, width, merged);
    }
    sorted = merged;
  }
  return sorted;
}

/** Two stretches of `width` from `start` on, the last one shorter where the list ends. */
function* merge(from: PageRun[], start: number, width: number, into: PageRun[]): Steps<void> {
  const middle = Math.min(start + width, from.length);
  const end = Math.min(start + 2 * width, from.length);
  let right = middle;
  for (let left = start; left < middle; left++) {
    const next = from[left] as PageRun;
    for (; right < end && (from[right] as PageRun).gpa < next.gpa; right++) {
      into.push(from[right] as PageRun);
      if (right % ROUNDS_PER_STEP === 0) yield;
    }
    into.push(next);
    if (left % ROUNDS_PER_STEP === 0) yield;
  }
  for (; right < end; right++) into.push(from[right] as PageRun);
}

/** What is wrong with the runs, if anything. */
function* problemOf(
  runs: readonly PageRun[],
  regions: readonly Pick<MemoryRegion, 'gpa' | 'size'>[],
): Steps<string | undefined> {
  if (runs.length > LIMITS.workingSetRuns) {
    return `${runs.length} runs, more than ${LIMITS.workingSetRuns}`;
  }
  const places = yield* inOrderOfGpa(runs);
  const inOrder = [...regions].sort((a, b) => (a.gpa < b.gpa ? -1 : 1));
  let at = 0;
  let before = 0n;
  for (const [i, { gpa, count }] of places.entries()) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    const end = gpa + BigInt(count) * PAGE;
    if (gpa % PAGE !== 0n || end <= gpa) return 'a run is not of whole pages';
    if (gpa < before) return `the page at 0x${gpa.toString(16)} is in two runs`;
    before = end;
    const ends = (region: { gpa: bigint; size: number } | undefined): bigint =>
      region === undefined ? 0n : region.gpa + BigInt(region.size);
    while (at < inOrder.length && gpa >= ends(inOrder[at])) at++;
    const region = inOrder[at];
    if (region === undefined || gpa < region.gpa || end > ends(region)) {
      return `the run at 0x${gpa.toString(16)} is not inside a region`;
    }
  }
  return undefined;
}
