// npm run bench: kvmsnap beside what bare ioctls cost. See docs/benchmarks.md.
//
// Product and floor take turns, round by round, each first in every other round, so that what else the
// machine does meets both alike.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { packageRoot } from '../build/compile.mjs';
import { buildFloor } from './build-floor.mjs';
import { limitOf, selectGroups } from './figures.mjs';
import { measureFloor } from './floor.mjs';
import { hostFacts, load } from './host.mjs';
import { parseOptions, samplesOf, USAGE, UsageError } from './options.mjs';
import { measureProduct } from './product.mjs';
import { availableMiB, formatSize, neededMiB } from './sizes.mjs';
import { combine } from './statistics.mjs';
import { formatHost, formatTable } from './table.mjs';

// Gone at the exit, so that a signal leaves nothing either.
const scratches = new Set();
process.on('exit', () => {
  for (const scratch of scratches) rmSync(scratch, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130));

function requireBuilt() {
  if (existsSync(path.join(packageRoot, 'dist/index.js'))) return;
  throw new UsageError('kvmsnap is not built: run `npm run build` first');
}

/** Adds one round of a group to `rounds`, by figure. */
async function measureRound(group, program, settings, floorFirst, rounds) {
  const floorOf = () => measureFloor(program, group.floorGroups, settings);
  let floor = floorFirst ? await floorOf() : undefined;
  const product = await measureProduct(group, settings);
  floor ??= await floorOf();
  for (const figure of group.figures) {
    rounds.get(figure.name).push({
      product: product.get(figure.name) ?? [],
      floor: figure.floor === null ? [] : (floor.get(figure.floor) ?? []),
    });
  }
}

function requireMemory(memoryMiB) {
  const [needed, available] = [neededMiB(memoryMiB), availableMiB()];
  if (available < needed) {
    throw new UsageError(
      `machines of ${formatSize(memoryMiB)} need ${needed} MiB of memory, and ${available} are available`,
    );
  }
}

async function measureAll(groups, memoryMiB, options, scratch) {
  requireMemory(memoryMiB);
  const program = buildFloor();
  const { rounds: most, runs, slowRuns } = samplesOf(memoryMiB, options);
  const settings = { memoryMiB, memory: memoryMiB * 2 ** 20, runs, slowRuns, scratch };
  const rounds = new Map(groups.flatMap(({ figures }) => figures.map(({ name }) => [name, []])));
  const started = performance.now();
  let longest = 0;
  let done = 0;
  while (done < most) {
    const begun = performance.now();
    if (done > 0 && begun - started + longest > options.budgetMs) break;
    process.stderr.write(`${formatSize(memoryMiB)}: round ${done + 1} of ${most} ...\n`);
    for (const group of groups) {
      // A machine with much other work may not even have the time for one round.
      if (performance.now() - started > options.budgetMs) break;
      await measureRound(group, program, settings, done % 2 === 0, rounds);
    }
    longest = Math.max(longest, performance.now() - begun);
    done += 1;
  }
  return { rounds, done };
}

function resultsOf(groups, memoryMiB, rounds) {
  const measured = groups
    .flatMap(({ figures }) => figures)
    .filter(({ name }) => rounds.get(name).length > 0);
  return measured.map((figure) => {
    const limit = limitOf(figure, memoryMiB);
    return {
      name: figure.name,
      memory_MiB: memoryMiB,
      ...combine(rounds.get(figure.name)),
      floor_name: figure.floor,
      ...(figure.aim === undefined ? {} : { aim: figure.aim }),
      ...(limit === undefined ? {} : { limit_us: limit }),
    };
  });
}

/** All figures for one size of memory. What it put on disk is gone afterwards. */
async function measureSize(groups, memoryMiB, options) {
  const scratch = mkdtempSync(path.join(options.directory ?? tmpdir(), 'kvmsnap-bench-'));
  scratches.add(scratch);
  try {
    const loadBefore = load();
    const { rounds, done } = await measureAll(groups, memoryMiB, options, scratch);
    const run = {
      memory_MiB: memoryMiB,
      load_before: loadBefore,
      load_after: load(),
      rounds: done,
    };
    const leftOut = [...rounds].filter(([, samples]) => samples.length === 0);
    if (leftOut.length > 0) run.left_out = leftOut.map(([name]) => name);
    return { results: resultsOf(groups, memoryMiB, rounds), run };
  } finally {
    rmSync(scratch, { recursive: true, force: true });
    scratches.delete(scratch);
  }
}

async function main(argv) {
  const options = parseOptions(argv);
  if (options === undefined) return console.log(USAGE);
  const groups = selectGroups(options.only);
  if (groups.length === 0) throw new UsageError('--only matches no figure');
  requireBuilt();
  const host = hostFacts();
  const all = { results: [], host: { ...host, runs: [] } };
  for (const memoryMiB of options.sizesMiB) {
    const { results, run } = await measureSize(groups, memoryMiB, options);
    console.log(`${formatHost(host, run)}\n\n${formatTable(results)}\n`);
    if (run.left_out) console.log(`left out for want of time: ${run.left_out.join(', ')}\n`);
    all.results.push(...results);
    all.host.runs.push(run);
    // After each size: a later one may find too little memory.
    if (options.json) writeFileSync(options.json, `${JSON.stringify(all, null, 2)}\n`);
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof UsageError ? `bench: ${error.message}` : error);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
