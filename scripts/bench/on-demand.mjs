// npm run bench:on-demand: restores on demand beside the mapped one. See docs/on-demand.md.
//
// Each way takes its turn in every round, so that what else the machine does meets all alike. Page cache
// warm, in-process: what a network or a disk adds is not in it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { Snapshot } from '../../dist/index.js';
import { GUEST_ABI } from '../../dist/native/guest-abi.js';
import { hostFacts } from './host.mjs';
import { createMachine, fillMemory, pagesOf, runToReady, setPages } from './machines.mjs';
import { percentile } from './statistics.mjs';
import { formatTime } from './table.mjs';

const USAGE = `Usage: npm run bench:on-demand -- [options]

  --memory MIB  guest memory (default 256)
  --rounds N    restores of each kind (default 15)`;

const { values: options } = parseArgs({
  options: {
    memory: { type: 'string', default: '256' },
    rounds: { type: 'string', default: '15' },
    help: { type: 'boolean', default: false },
  },
});
const memory = Number(options.memory) * 2 ** 20;
const now = () => performance.now() * 1000;

/** Until the guest has written its pages once. */
async function passDone(vm) {
  for (;;) {
    const exit = await vm.vcpus[0].run();
    if (exit.kind === 'io' && exit.port === GUEST_ABI.PORT_PASS) return;
  }
}

/** A snapshot of a guest that is about to write `pages` pages. */
async function saved(store, tag, pages) {
  const vm = await createMachine('least', memory);
  fillMemory(vm, memory);
  await setPages(vm, pages);
  return vm.snapshot({ store, tag, durable: false, then: 'stop' });
}

async function recorded(snapshot) {
  const vm = await snapshot.restore({ paging: { record: true } });
  await runToReady(vm);
  await passDone(vm);
  const runs = vm.workingSet();
  await vm.close();
  return snapshot.addWorkingSet(runs, { durable: false });
}

/** All of guest memory in this process, as a source. */
async function sourceOf(snapshot) {
  const vm = await snapshot.restore();
  const bytes = vm.memory.read(0n, memory);
  await vm.close();
  return { read: (gpa, length) => bytes.subarray(Number(gpa), Number(gpa) + length) };
}

async function measureOne(snapshot, paging) {
  const start = now();
  const vm = await snapshot.restore(paging ? { paging } : {});
  const ready = now() - start;
  await runToReady(vm);
  const firstExit = now() - start;
  await passDone(vm);
  const pass = now() - start;
  const { faults, latencyUs } = vm.paging ?? { faults: 0, latencyUs: { p50: 0, p99: 0 } };
  let whole;
  if (paging) {
    const before = now();
    await vm.pageIn();
    whole = now() - before;
  }
  await vm.close();
  return { ready, firstExit, pass, faults, p50: latencyUs.p50, p99: latencyUs.p99, whole };
}

async function measure(snapshot, title) {
  const warm = await recorded(snapshot);
  const ways = {
    mapped: [snapshot],
    'on demand, 64 KiB': [snapshot, {}],
    'on demand, 4 KiB': [snapshot, { faultBytes: 4096 }],
    'on demand, 2 MiB': [snapshot, { faultBytes: 2 ** 21 }],
    'on demand, prefetch': [warm, { prefetch: true }],
    'on demand, JavaScript': [snapshot, { source: await sourceOf(snapshot) }],
  };
  const samples = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [name, [from, paging]] of Object.entries(ways)) {
      samples[name].push(await measureOne(from, paging));
    }
  }
  console.log(`\n${title}, p50 of ${options.rounds}\n`);
  console.log(
    '| | ready | first exit | pages written | faults | fault p50 | fault p99 | the rest |',
  );
  console.log('|---|---:|---:|---:|---:|---:|---:|---:|');
  for (const [name, list] of Object.entries(samples)) {
    const of = (key) =>
      percentile(
        list.map((sample) => sample[key] ?? 0),
        50,
      );
    const time = (key) => (of(key) === 0 ? '-' : formatTime(of(key)));
    const cells = [time('ready'), time('firstExit'), time('pass'), of('faults') || '-'];
    console.log(`| ${[name, ...cells, time('p50'), time('p99'), time('whole')].join(' | ')} |`);
  }
  warm.close();
}

if (options.help) {
  console.log(USAGE);
} else {
  const scratch = mkdtempSync(path.join(tmpdir(), 'kvmsnap-bench-'));
  try {
    const { cpu, cpus, kernel, kvm } = hostFacts();
    console.log(`${cpu}, ${cpus} CPUs; Linux ${kernel}; KVM: ${kvm}; ${options.memory} MiB`);
    const store = path.join(scratch, 'store');
    const all = pagesOf(memory);
    for (const [tag, pages] of [
      ['few', 100],
      ['tenth', Math.floor(all / 10)],
      ['all', all],
    ]) {
      const snapshot = await saved(store, tag, pages);
      snapshot.close();
      const opened = await Snapshot.open(store, tag);
      await measure(opened, `${pages} of ${all} pages written`);
      opened.close();
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}
