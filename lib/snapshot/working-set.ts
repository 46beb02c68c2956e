/**
 * The working set of a snapshot: pages in the order in which a machine made from it first touched them,
 * for a restore that fetches those first. docs/format.md, "Working set".
 */
import { requireArgument } from '../errors.js';
import type { PageRun } from '../native/binding.js';
import { PAGE_SIZE } from '../units.js';
import { decodeCbor, encodeCbor, isMap } from './cbor.js';
import { formatError, versionError } from './failures.js';
import { LAYOUT_VERSION, LIMITS } from './format.js';
import type { MemoryRegion } from './memory-index.js';

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
  const root = decodeCbor(bytes, WHAT);
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
  const runs = Array.from({ length: packed.length / RUN_BYTES }, (_, i): PageRun => {
    const length = view.getBigUint64(i * RUN_BYTES + 8, true);
    if (length % PAGE !== 0n || length > BigInt(LIMITS.guestAddress)) {
      throw formatError(WHAT, 'a run is not of whole pages');
    }
    return { gpa: view.getBigUint64(i * RUN_BYTES, true), count: Number(length / PAGE) };
  });
  const problem = problemOf(runs, regions);
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
  const problem = problemOf(runs, regions);
  requireArgument(problem === undefined, `the working set is of no use here: ${problem}`);
}

/** What is wrong with the runs, if anything. */
function problemOf(
  runs: readonly PageRun[],
  regions: readonly Pick<MemoryRegion, 'gpa' | 'size'>[],
): string | undefined {
  if (runs.length > LIMITS.workingSetRuns) {
    return `${runs.length} runs, more than ${LIMITS.workingSetRuns}`;
  }
  const places = runs.map(({ gpa, count }) => ({ gpa, end: gpa + BigInt(count) * PAGE }));
  places.sort((a, b) => (a.gpa < b.gpa ? -1 : a.gpa > b.gpa ? 1 : 0));
  const inOrder = [...regions].sort((a, b) => (a.gpa < b.gpa ? -1 : 1));
  let at = 0;
  let before = 0n;
  for (const { gpa, end } of places) {
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
