// npm run bench:dirty: every dirty tracker on the same rounds of writes. See docs/dirty-tracking.md.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../../build/compile.mjs';
import { hostFacts, load } from '../host.mjs';
import { percentile } from '../statistics.mjs';
import { chart } from './plot.mjs';
import { WORKLOADS } from './workloads.mjs';

const USAGE = `Usage: npm run bench:dirty -- [options]

  --out DIR       where the CSV file and the plots go (default: docs/dirty-tracking)
  --trackers A,B  only these; \`none\` is the guest without tracking
  --sizes A,B     writes in an epoch (default: 1,10,100,1000,10000,100000)
  --rounds N      epochs of each kind (default: 5; a fifth of it from 100000 writes on)`;

const RANGE = 131_072; // pages: 512 MiB

const { values: options } = parseArgs({
  options: {
    out: { type: 'string', default: path.join(packageRoot, 'docs/dirty-tracking') },
    trackers: { type: 'string', default: 'none,bitmap,bitmap-manual,ring,pagemap,uffd-wp,cow' },
    sizes: { type: 'string', default: '1,10,100,1000,10000,100000' },
    rounds: { type: 'string', default: '5' },
    help: { type: 'boolean', default: false },
  },
});

const median = (samples) => percentile(samples, 50);

async function measureCell(machine, epochs, workload, writes, rounds) {
  const guest = [];
  const harvest = [];
  const lost = [];
  const totals = { distinct: 0, missed: 0, extra: 0 };
  for (let round = 0; round < rounds; round++) {
    machine.prepare(WORKLOADS[workload](writes, RANGE, writes + round));
    // What the host has just written down belongs to no round.
    await epochs?.next();
    guest.push(await machine.round());
    if (!epochs) continue;
    const { value: epoch } = await epochs.next();
    harvest.push(epoch.harvestUs);
    lost.push(epoch.lostUs);
    for (const [name, count] of Object.entries(machine.compare(epoch))) totals[name] += count;
  }
  return {
    rounds,
    distinct: epochs ? totals.distinct / rounds : undefined,
    guest_us: median(guest),
    guest_least_us: Math.min(...guest),
    harvest_us: epochs ? median(harvest) : undefined,
    lost_us: epochs ? median(lost) : undefined,
    missed: epochs ? totals.missed : undefined,
    extra: epochs ? totals.extra / rounds : undefined,
  };
}

async function measureTracker(tracker, sizes, rounds, tscKhz) {
  const { BenchMachine } = await import('./machine.mjs');
  const machine = await BenchMachine.create(tracker, RANGE, tscKhz);
  const rows = [];
  try {
    await machine.touchAll();
    const epochs = tracker === 'none' ? undefined : machine.vm.dirty({ tracker, every: 0 });
    for (const writes of sizes) {
      for (const workload of Object.keys(WORKLOADS)) {
        const count = writes >= 100_000 ? Math.ceil(rounds / 5) : rounds;
        const cell = await measureCell(machine, epochs, workload, writes, count);
        rows.push({ tracker, workload, writes, ...cell });
      }
    }
    await epochs?.return();
  } finally {
    await machine.vm.close();
  }
  return rows;
}

const COLUMNS = [
  'tracker',
  'workload',
  'writes',
  'rounds',
  'distinct',
  'guest_us',
  'guest_least_us',
  'harvest_us',
  'lost_us',
  'missed',
  'extra',
];

const cellText = (value) =>
  typeof value === 'number' ? String(Math.round(value * 10) / 10) : (value ?? '');

function plots(rows, workload) {
  const trackers = [...new Set(rows.map(({ tracker }) => tracker))];
  const seriesOf = (column) =>
    trackers.map((name) => ({
      name,
      points: rows
        .filter(
          (row) => row.tracker === name && row.workload === workload && row[column] !== undefined,
        )
        .map((row) => [row.writes, row[column]]),
    }));
  return {
    [`guest-${workload}.svg`]: chart({
      title: `Least time of the guest for one epoch: ${workload}`,
      x: 'writes in the epoch',
      y: 'microseconds',
      series: seriesOf('guest_least_us'),
    }),
    ...(trackers.some((name) => name !== 'none')
      ? {
          [`harvest-${workload}.svg`]: chart({
            title: `Time of a harvest: ${workload}`,
            x: 'writes in the epoch',
            y: 'microseconds',
            series: seriesOf('harvest_us'),
          }),
        }
      : {}),
  };
}

async function main() {
  if (options.help) return console.log(USAGE);
  if (!existsSync(path.join(packageRoot, 'dist/index.js'))) {
    throw new Error('kvmsnap is not built: run `npm run build` first');
  }
  const { kvmHost } = await import('../../../dist/host/host.js');
  const sizes = options.sizes.split(',').map(Number);
  const rows = [];
  for (const tracker of options.trackers.split(',')) {
    process.stderr.write(`${tracker} ...\n`);
    rows.push(...(await measureTracker(tracker, sizes, Number(options.rounds), kvmHost().tscKhz)));
  }
  mkdirSync(options.out, { recursive: true });
  const lines = [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => cellText(row[name])))];
  writeFileSync(
    path.join(options.out, 'dirty.csv'),
    `${lines.map((line) => line.join(',')).join('\n')}\n`,
  );
  for (const workload of Object.keys(WORKLOADS)) {
    for (const [name, svg] of Object.entries(plots(rows, workload))) {
      writeFileSync(path.join(options.out, name), svg);
    }
  }
  const { cpu, kernel, kvm, node } = hostFacts();
  console.log(`${cpu}, Linux ${kernel}, KVM by ${kvm}, Node ${node}, load ${load()}`);
  console.table(
    rows.map((row) => Object.fromEntries(COLUMNS.map((name) => [name, cellText(row[name])]))),
  );
  const missed = rows.reduce((sum, row) => sum + (row.missed ?? 0), 0);
  console.log(`${missed} pages were missed`);
  if (missed > 0) process.exitCode = 1;
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
