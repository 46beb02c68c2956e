// crowd.mjs COUNT MIB: so many forks of one machine at once, whose memory is full; what they cost, and what is
// left of them.
import { readFileSync } from 'node:fs';
import { touching } from './machines.mjs';
import { settled, usage } from './usage.mjs';

const [count, mib] = [Number(process.argv[2]), Number(process.argv[3])];
const CHUNK = 1 << 20;

/** Proportional set size of this process, in KiB: pages that others share count in part. */
function pss() {
  const rollup = readFileSync('/proc/self/smaps_rollup', 'latin1');
  return Number(/^Pss:\s+(\d+) kB/m.exec(rollup)[1]);
}

const vm = await touching({ memory: mib << 20 });
for (let at = 2 << 20; at < mib << 20; at += CHUNK) {
  vm.memory.write(BigInt(at), Buffer.alloc(CHUNK, 1 + (at >> 20)));
}
const snapshot = await vm.snapshot();

/** Some of them run, and all are closed. */
async function end(forks) {
  for (const fork of forks.filter((_, i) => i % 20 === 0)) {
    await fork.vcpus[0].run();
    const last = BigInt((mib - 1) << 20);
    if (fork.memory.read(last, 1)[0] !== (mib & 0xff)) throw new Error('a fork has other memory');
  }
  await Promise.all(forks.map((fork) => fork.close()));
}

// What is kept for the next time: stacks of threads, V8's heap.
await end(await snapshot.fork(Math.ceil(count / 4)));
const before = await settled();
const pssBefore = pss();

const began = performance.now();
const forks = await snapshot.fork(count);
const seconds = (performance.now() - began) / 1000;
const idle = { ...usage(), pss: pss() };

await end(forks);
const after = await settled(before);
const pssPerFork = (idle.pss - pssBefore) / count;
console.log(JSON.stringify({ before, idle, after, seconds, pssPerFork }));
