import { openSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { describe, expect, it } from 'vitest';
import { Snapshot, SnapshotStore } from '../../../lib/index.js';
import { nativeBinding } from '../../../lib/native/load.js';
import {
  CostlyStore,
  indexOf,
  KiB,
  layersOf,
  memoryIndex,
  memoryPart,
} from '../../unit/snapshot/costly-stores.js';
import { PAGE } from '../../unit/snapshot/samples.js';
import { until } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

const TiB = 2 ** 40;

/** Some 12 KB of files that say that the machine has 1 TiB of RAM. */
async function enormous(): Promise<CostlyStore> {
  const made = await CostlyStore.make();
  const part = Buffer.alloc(PAGE, 1);
  const index = memoryIndex(made, indexOf({ gpa: 0, size: TiB, count: 1, part }));
  const config = made.putConfig((whole) => {
    whole.machine.memory.regions[0].size = TiB;
  });
  made.name([made.putManifest(layersOf(made, index, memoryPart(made, part), 1), { config })]);
  return made;
}

describe('a machine that is larger than the host should be asked for', () => {
  it('of 1 TiB is refused before KVM is asked for it', async () => {
    const { path } = await enormous();
    using snapshot = await Snapshot.open(path, 't0');
    expect((await snapshot.config()).machine.memory.regions[0]!.size).toBe(TiB);
    const limit = { code: 'ERR_SNAPSHOT_LIMIT', details: { limit: 'memoryBytes', found: TiB } };
    expect(totalmem()).toBeLessThan(TiB / 4);
    await expect(snapshot.restore()).rejects.toMatchObject(limit);
    await expect(snapshot.fork(2)).rejects.toMatchObject(limit);
    // Whoever allows it is told the next reason: its state is that of no CPU.
    using allowed = await Snapshot.open(path, 't0', { limits: { memoryBytes: TiB } });
    await expect(allowed.restore()).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_INCOMPATIBLE' });
  });

  it('of more vCPUs than allowed is refused', async () => {
    const { path } = await enormous();
    const limits = { memoryBytes: TiB, vcpus: 0 };
    using snapshot = await Snapshot.open(await SnapshotStore.open(path, { limits }), 't0');
    await expect(snapshot.restore()).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_LIMIT',
      details: { limit: 'vcpus', found: 1, allowed: 0 },
    });
  });
});

describe('a copy of memory that nobody waits for any more', () => {
  const written = (): number =>
    Number(/^wchar: (\d+)/m.exec(readFileSync('/proc/self/io', 'latin1'))?.[1]);
  const copies = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).includes('kvmsnap-composed');
      } catch {
        return false;
      }
    }).length;

  it('ends, and leaves nothing: 70 000 extents over one part of 64 KiB', async () => {
    const path = `${scratch()}/part`;
    writeFileSync(path, Buffer.alloc(64 * KiB, 1));
    const count = 70_000;
    const size = 2 * count * 64 * KiB;
    const rows = new Float64Array(4 * count);
    for (let i = 0; i < count; i++) rows.set([2 * i * 64 * KiB, 64 * KiB, 0, 0], 4 * i);
    const image = nativeBinding().imageFromFiles([openSync(path, 'r')], [{ gpa: 0n, size }], rows);
    const before = written();
    const preparing = image.prepare()!;
    const other = image.prepare()!;
    await until('it copies', () => written() > before + 2 ** 20);
    preparing.cancel();
    other.cancel();
    // Both are heard at once: either may end first.
    const ends = await Promise.allSettled([preparing.done, other.done]);
    const aborted = { status: 'rejected', reason: { code: 'ERR_ABORTED' } };
    expect(ends).toMatchObject([aborted, aborted]);
    expect(written() - before).toBeLessThan((count * 64 * KiB) / 2);
    await until('the memory of both is freed', () => copies() === 0);
    image.close();
  });
});
