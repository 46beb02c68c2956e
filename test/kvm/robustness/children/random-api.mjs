// random-api.mjs SEED STEPS HANG_MS: episodes of random calls, and what they leave behind.

import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { episode } from './api-episode.mjs';
import { bare, SPIN } from './machines.mjs';
import { remove, scratchIn } from './operations.mjs';
import { Choices } from './random.mjs';
import { usage } from './usage.mjs';

const [first, wanted, hangMs] = process.argv.slice(2).map(Number);
const EPISODE = 80;
/** Every so many episodes one is in a worker that ends too early. */
const WORKER_EVERY = 4;

/** Of guests: RAM, a vCPU's page, a snapshot's file. */
const guestMappings = () =>
  readFileSync('/proc/self/maps', 'latin1').match(/memfd:|kvm-vcpu|\/blobs\//g)?.length ?? 0;

const resources = () => ({ ...usage(), guest: guestMappings() });
const WATCHED = ['fds', 'ours', 'threads', 'guest'];

/** Threads that have said goodbye take a moment to be gone; what was forgotten waits for the collector. */
async function leaks(before, watched, collects) {
  const deadline = performance.now() + hangMs;
  for (;;) {
    if (collects) globalThis.gc();
    await sleep(5);
    const now = resources();
    const more = watched.filter((name) => now[name] > before[name]);
    if (more.length === 0) return [];
    if (performance.now() > deadline) {
      return [...more.map((name) => `${name}: ${now[name]}, before ${before[name]}`), ...threads()];
    }
  }
}

const threads = () =>
  readdirSync('/proc/self/task').map((id) => {
    const [name, wait] = ['comm', 'wchan'].map((file) =>
      readFileSync(`/proc/self/task/${id}/${file}`, 'utf8').trim(),
    );
    return `thread ${id}: ${name}, ${wait}`;
  });

async function inWorker(options) {
  const choices = new Choices(options.seed, -2);
  const [exits, afterMs] = [choices.once(2), 20 + choices.below(200)];
  const worker = new Worker(new URL('api-worker.mjs', import.meta.url), {
    workerData: { ...options, ...(exits ? { exitAfterMs: afterMs } : {}) },
  });
  const faults = [];
  worker.on('error', (error) => faults.push(error.message));
  const exited = new Promise((resolve) => worker.once('exit', resolve));
  if (!exits) {
    await Promise.race([exited, sleep(afterMs)]);
    await worker.terminate();
  }
  await exited;
  return faults;
}

/** Makes what a process keeps from then on: a VM, /dev/kvm, a thread that resets are helped by. */
async function warmUp() {
  for (let round = 0; round < 2; round++) {
    const vm = await bare(SPIN);
    await vm.start();
    const instant = await vm.snapshot();
    await vm.reset(instant);
    instant.close();
    await vm.close();
  }
}

await warmUp();
/** What two episodes more leave is the process's: V8's and glibc's threads, /dev/kvm, a VM that is kept. */
const seen = { calls: 0, episodes: 0, workers: 0, outcomes: {} };
let before;
for (let round = -2, done = 0; done < wanted; round++) {
  const seed = (first + Math.max(round, 0)) >>> 0;
  const directory = scratchIn(tmpdir());
  const options = { seed, steps: EPISODE, directory: join(directory, 's'), hangMs };
  const worker = round < 0 ? round === -2 : seed % WORKER_EVERY === 0;
  before = resources();
  let faults;
  let lines = [];
  let collects = true;
  if (worker) {
    faults = await inWorker(options);
    seen.workers++;
  } else {
    const { calls, forgets } = await episode(options);
    ({ faults, lines } = calls);
    collects = forgets;
    seen.calls += calls.count;
    for (const [code, count] of Object.entries(calls.outcomes)) {
      seen.outcomes[code] = (seen.outcomes[code] ?? 0) + count;
    }
  }
  if (round >= 0) {
    done += EPISODE;
    seen.episodes++;
  }
  if (faults.length === 0 && round >= 0) {
    // Node leaves a FileHandle open when its worker is terminated in the middle of a write.
    const left = await leaks(before, worker ? ['ours', 'threads', 'guest'] : WATCHED, collects);
    faults = left.map((text) => `left behind: ${text}`);
  }
  remove(directory);
  if (faults.length > 0) {
    console.error([...lines, `seed ${seed}:`, ...faults].join('\n'));
    process.exit(1);
  }
}
console.log(JSON.stringify(seen));
process.exit(0);
