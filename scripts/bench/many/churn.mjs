// Machines that live for one exit: taken, run to it, closed; over and over.
import { Pool } from '../../../dist/index.js';
import { runToReady, snapshotFilled } from '../machines.mjs';
import { summarize } from '../statistics.mjs';

const now = () => performance.now() * 1000;

/** One after the other in each of `lanes`, until the time is over. */
async function churn(take, lanes, ms) {
  const cycles = [];
  const begun = now();
  const end = begun + ms * 1000;
  const lane = async () => {
    while (now() < end) {
      const start = now();
      const vm = await take();
      try {
        await runToReady(vm);
      } finally {
        await vm.close();
      }
      cycles.push(now() - start);
    }
  };
  const lost = (await Promise.allSettled(Array.from({ length: lanes }, lane))).find(
    ({ status }) => status === 'rejected',
  );
  if (lost) throw lost.reason;
  return { ...summarize(cycles), perSecond: (cycles.length / (now() - begun)) * 1e6 };
}

/** Cold: each is made from nothing and gone when its turn ends. Pooled: each goes back. */
export async function measureChurn(kind, { memory, lanes, ms }) {
  const snapshot = await snapshotFilled(kind, memory);
  try {
    const results = [];
    for (const parallel of lanes) {
      const cold = await churn(() => snapshot.restore(), parallel, ms);
      results.push({ kind, how: 'cold', parallel, ...cold });
      // Twice as many as are at work: what comes back is emptied beside the next one's run.
      const pool = await Pool.create(snapshot, { size: parallel * 2, max: parallel * 2 });
      try {
        const pooled = await churn(() => pool.get(), parallel, ms);
        results.push({ kind, how: 'pooled', parallel, ...pooled });
      } finally {
        await pool.close();
      }
    }
    return results;
  } finally {
    snapshot.close();
  }
}
