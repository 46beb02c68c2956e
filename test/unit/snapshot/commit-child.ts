/** A process that commits snapshots until it is killed: `STORE TAG-PREFIX COUNT DURABLE`. */
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { addSample } from './samples.js';

const [path, prefix, count, durable] = process.argv.slice(2) as [string, string, string, string];
const store = await SnapshotStore.open(path, { durable: durable === 'true' });
process.stdout.write('ready\n');
for (let i = 0; i < Number(count); i++) {
  const pages = Object.fromEntries(
    Array.from({ length: 12 }, (_, page) => [page * 3, 1 + (i % 200)]),
  );
  await addSample(store, { tag: `${prefix}${i}`, pages, seed: i });
  process.stdout.write(`${i}\n`);
}
