// cycles.mjs bare|irqchip|restore COUNT: makes, runs and closes machines; samples on the way.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { bare, EXIT, SPIN } from './machines.mjs';
import { settled } from './usage.mjs';

const [kind, count] = [process.argv[2], Number(process.argv[3])];
const store = mkdtempSync(join(tmpdir(), 'kvmsnap-cycles-'));
const samples = [];

async function snapshotOf(code) {
  const vm = await bare(code);
  const snapshot = await vm.snapshot({ store });
  await vm.close();
  return snapshot;
}

/** Half of them stop by themselves, half are closed as they run. */
async function use(vm, stops) {
  await vm.start();
  if (stops) {
    const { reason, code } = await vm.wait();
    if (reason !== 'exit-port' || code !== 7) throw new Error(`stopped by ${reason} ${code}`);
  }
  await vm.close();
}

try {
  const snapshots =
    kind === 'restore' ? [await snapshotOf(SPIN), await snapshotOf(EXIT)] : undefined;
  for (let cycle = 0; cycle < count; cycle++) {
    const stops = cycle % 2;
    const vm = snapshots
      ? await snapshots[stops].restore()
      : await bare(stops ? EXIT : SPIN, { irqchip: kind === 'irqchip' });
    await use(vm, stops);
    if ((cycle + 1) % Math.ceil(count / 50) === 0) samples.push(await settled());
  }
  for (const snapshot of snapshots ?? []) snapshot.close();
} finally {
  rmSync(store, { recursive: true, force: true });
}
console.log(JSON.stringify(samples));
