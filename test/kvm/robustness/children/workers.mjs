// workers.mjs OPERATION ROUNDS: ends workers in the middle of it; tells what is left of them.
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { OPERATIONS, remove, scratchIn } from './operations.mjs';
import { settled } from './usage.mjs';

const [operation, rounds] = [process.argv[2], Number(process.argv[3])];
if (!Object.hasOwn(OPERATIONS, operation)) throw new Error(`no operation ${operation}`);

async function endOne(round) {
  const end = ['terminate', 'terminate', 'terminate', 'exit', 'throw'][round % 5];
  const directory = scratchIn(tmpdir());
  const worker = new Worker(new URL('worker.mjs', import.meta.url), {
    workerData: { operation, directory, end },
  });
  const errors = [];
  worker.on('error', (error) => errors.push(error.message));
  const exited = new Promise((resolve) => worker.once('exit', resolve));
  await Promise.race([new Promise((resolve) => worker.once('message', resolve)), exited]);
  if (end === 'terminate') {
    await sleep(round % 7);
    await worker.terminate();
  }
  await exited;
  remove(directory);
  const unexpected = errors.filter((message) => message !== 'uncaught on purpose');
  if (unexpected.length > 0) throw new Error(`the worker failed: ${unexpected.join()}`);
}

// Two for what the process keeps: /dev/kvm, and V8's and glibc's threads and arenas.
for (let round = 0; round < 2; round++) await endOne(round);
const before = await settled({ ours: 0, threads: Infinity });
for (let round = 0; round < rounds; round++) await endOne(round);
const after = await settled(before);
console.log(JSON.stringify({ before, after }));
