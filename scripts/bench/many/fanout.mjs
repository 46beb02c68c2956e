// Many machines from one snapshot, all alive at once.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { runToReady, snapshotFilled } from '../machines.mjs';
import { summarize } from '../statistics.mjs';
import { counts, pssKiB } from './usage.mjs';

const now = () => performance.now() * 1000;

/** PSS without what only waits to be collected. */
function settledPss() {
  globalThis.gc?.();
  return pssKiB();
}

/** Threads that were joined are in /proc for another moment. */
async function settledCounts(before) {
  let left = counts();
  for (let tries = 0; tries < 100 && left.threads > before.threads; tries++) {
    await sleep(10);
    left = counts();
  }
  return left;
}

async function closeAll(machines) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const start = now();
  await Promise.all(machines.map((vm) => vm.close()));
  const us = now() - start;
  delay.disable();
  return { us, longestTurnUs: delay.max / 1000 };
}

/** Times are microseconds, `left`: what is there after all that was not before. */
export async function measureFanout(kind, { memory, count }) {
  const snapshot = await snapshotFilled(kind, memory);
  // What the first machines bring (threads, compiled code, heaps) is not a fork's.
  await closeAll(await snapshot.fork(Math.min(count, 100)));
  const before = { counts: counts(), pss: settledPss() };
  let machines = [];
  try {
    const start = now();
    machines = await snapshot.fork(count);
    const forkUs = now() - start;
    const idlePss = settledPss();
    const held = counts();
    const firstExits = [];
    for (const vm of machines) {
      const entry = now();
      await runToReady(vm);
      firstExits.push(now() - entry);
    }
    const ranPss = settledPss();
    const closing = await closeAll(machines);
    machines = [];
    const after = await settledCounts(before.counts);
    const each = (pss) => (pss - before.pss) / count;
    return {
      kind,
      count,
      forkUs,
      forksPerSecond: (count / forkUs) * 1e6,
      idlePssKiB: each(idlePss),
      ranPssKiB: each(ranPss),
      fdsEach: (held.fds - before.counts.fds) / count,
      mapsEach: (held.maps - before.counts.maps) / count,
      firstExit: summarize(firstExits),
      closeUs: closing.us,
      closeLongestTurnUs: closing.longestTurnUs,
      left: {
        fds: after.fds - before.counts.fds,
        threads: after.threads - before.counts.threads,
        maps: after.maps - before.counts.maps,
        pssKiB: settledPss() - before.pss,
      },
    };
  } finally {
    await Promise.all(machines.map((vm) => vm.close()));
    snapshot.close();
  }
}
