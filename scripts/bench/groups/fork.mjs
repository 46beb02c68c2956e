// New machines from a snapshot in memory: made from nothing (cold), and taken from a pool.
import { Pool } from '../../../dist/index.js';
import { figureOf, measureRestores, runToReady, snapshotFilled } from '../machines.mjs';

async function measurePooled(kind, snapshot, { shortRuns, record, now }) {
  const pool = await Pool.create(snapshot, { size: 1, max: 2 });
  for (let i = 0; i < shortRuns; i++) {
    const start = now();
    const vm = await pool.get();
    record(figureOf(kind, 'pooled_fork_ready'), now() - start);
    await runToReady(vm);
    record(figureOf(kind, 'pooled_fork_first_exit'), now() - start);
    await vm.close();
    // Until it is there again: what is measured is taking one, not waiting for one.
    while (pool.stats.recycling > 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await pool.close();
}

export async function measure(context) {
  for (const kind of ['least', 'full']) {
    const snapshot = await snapshotFilled(kind, context.memory);
    const names = ['cold_fork_ready', 'cold_fork_first_exit'];
    await measureRestores(kind, snapshot, names, context);
    await measurePooled(kind, snapshot, context);
    snapshot.close();
  }
}
