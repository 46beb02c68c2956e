// npm run bench:qemu: what QEMU takes to save and clone a like guest. See docs/benchmarks.md.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { compile, packageRoot } from '../../build/compile.mjs';
import { hasCommand } from '../../emulated-host/packages.mjs';
import { hostFacts, load } from '../host.mjs';
import { UsageError } from '../options.mjs';
import { availableMiB, neededMiB, parseSize } from '../sizes.mjs';
import { summarize } from '../statistics.mjs';
import { formatColumns, formatHost, formatTime } from '../table.mjs';
import { QEMU } from './machine.mjs';
import { failureOf, measureSavevm, measureTemplate } from './measures.mjs';

const USAGE = `Usage: npm run bench:qemu -- [options]

  --memory SIZE  guest memory (default 256M; 32M to 2G)
  --runs N       how often each is done (default 5)
  --dir DIR      where scratch files go (default: the system's temporary directory)
  --json FILE    also write the figures as JSON
  --help`;

// Beyond, memory is not one run of addresses below the 32-bit hole, and the guest is 32-bit.
const MOST_MIB = 2048;
const FIRST_PAGE_MIB = 2;
const CLONES = 3;

const { values } = parseArgs({
  options: {
    memory: { type: 'string', default: '256M' },
    runs: { type: 'string', default: '5' },
    dir: { type: 'string', default: tmpdir() },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

function parse() {
  const memoryMiB = parseSize(values.memory);
  if (memoryMiB === undefined || memoryMiB > MOST_MIB) {
    throw new UsageError(`--memory takes 32M to 2G, not "${values.memory}"`);
  }
  const runs = Number(values.runs);
  if (!/^\d+$/.test(values.runs) || runs < 1 || runs > 100) {
    throw new UsageError(`--runs takes a number from 1 to 100, not "${values.runs}"`);
  }
  if (availableMiB() < neededMiB(memoryMiB)) {
    throw new UsageError(`this needs ${neededMiB(memoryMiB)} MiB of memory`);
  }
  return { memoryMiB, runs };
}

function buildFirmware(memoryMiB, directory) {
  const output = path.join(directory, 'guest.bin');
  const pages = (memoryMiB - FIRST_PAGE_MIB) * 256;
  compile([
    ...['-m32', '-nostdlib', '-static', '-Wl,--build-id=none', '-Wl,-Ttext=0,--oformat=binary'],
    ...[`-I${path.join(packageRoot, 'native/guest')}`, `-DBENCH_PAGES=${pages}`, '-o', output],
    path.join(packageRoot, 'scripts/bench/qemu/guest.S'),
  ]);
  return output;
}

/** KVM where QEMU can run the guest with it; else its emulation, and why. */
async function chooseAccelerator(options, scratch) {
  const why = await failureOf({ ...options, accel: 'kvm' }, scratch);
  return why === undefined ? { accel: 'kvm' } : { accel: 'tcg', why };
}

/** kvmsnap's figures of the same size, from the groups of `npm run bench`. */
async function measureKvmsnap({ memoryMiB, runs, scratch, record }) {
  const wanted = ['save_new_file', 'full_restore_file_ready', 'full_restore_file_first_exit'];
  const context = {
    ...{ memoryMiB, memory: memoryMiB * 2 ** 20, scratch, slowRuns: runs, runs },
    now: () => performance.now() * 1000,
    wanted: (name) => wanted.includes(name),
    record: (name, us) => (wanted.includes(name) ? record(name, us) : undefined),
  };
  for (const group of ['save', 'restore']) {
    const { measure } = await import(`../groups/${group}.mjs`);
    await measure(context);
  }
}

async function measureAll({ memoryMiB, runs }, scratch) {
  const samples = new Map();
  const record = (name, us) => samples.set(name, [...(samples.get(name) ?? []), us]);
  const firmware = buildFirmware(memoryMiB, scratch);
  const chosen = await chooseAccelerator({ firmware, memoryMiB }, scratch);
  const options = { firmware, memoryMiB, accel: chosen.accel };
  const context = { scratch, runs, clones: CLONES, record };
  process.stderr.write('savevm, loadvm ...\n');
  await measureSavevm(options, context);
  process.stderr.write('template ...\n');
  await measureTemplate(options, context);
  process.stderr.write('kvmsnap ...\n');
  await measureKvmsnap({ memoryMiB, runs, scratch, record });
  const results = [...samples].map(([name, times]) => {
    const { p50, p99, n } = summarize(times);
    return { name, memory_MiB: memoryMiB, p50_us: p50, p99_us: p99, n };
  });
  return { results, chosen };
}

const versionOf = () =>
  spawnSync(QEMU, ['--version'], { encoding: 'utf8' }).stdout.split('\n')[0].trim();

async function main() {
  if (values.help) return console.log(USAGE);
  const options = parse();
  if (!hasCommand(QEMU)) {
    return console.log(
      `bench:qemu: skipped, since ${QEMU} is not installed (Debian: apt-get install qemu-system-x86)`,
    );
  }
  if (!existsSync(path.join(packageRoot, 'dist/index.js'))) {
    throw new UsageError('kvmsnap is not built: run `npm run build` first');
  }
  const scratch = mkdtempSync(path.join(values.dir, 'kvmsnap-qemu-'));
  // At the exit, so that a signal leaves nothing either; after the machines' end (machine.mjs).
  process.on('exit', () => rmSync(scratch, { recursive: true, force: true }));
  const before = load();
  const { results, chosen } = await measureAll(options, scratch);
  const host = { ...hostFacts(), qemu: versionOf(), accelerator: chosen.accel };
  const run = {
    memory_MiB: options.memoryMiB,
    load_before: before,
    load_after: load(),
    rounds: options.runs,
  };
  const why = chosen.why === undefined ? '' : ` (KVM does not run it: ${chosen.why})`;
  console.log(`${formatHost(host, run)}\n${host.qemu}, accelerator ${chosen.accel}${why}\n`);
  console.log(
    formatColumns(
      ['figure', 'p50', 'p99', 'N'],
      results.map(({ name, p50_us, p99_us, n }) => [
        name,
        formatTime(p50_us),
        formatTime(p99_us),
        String(n),
      ]),
    ),
  );
  if (values.json) {
    writeFileSync(values.json, `${JSON.stringify({ results, host, run }, null, 2)}\n`);
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof UsageError ? `bench:qemu: ${error.message}` : error);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
