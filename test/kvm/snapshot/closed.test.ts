/** A snapshot that is closed while calls on it are under way: they go on, and its files close after them. */
import { readdirSync, readlinkSync } from 'node:fs';
import { expect, it } from 'vitest';
import { Pool, SnapshotStore } from '../../../lib/index.js';
import { bootGuest, tracked, until, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

function openIn(directory: string): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(directory);
    } catch {
      return false;
    }
  }).length;
}

it('restores, resets and pools that had begun go on, when it is open and when it is not', async () => {
  const vm = await bootGuest('counter');
  const directory = `${scratch()}/store`;
  const store = await SnapshotStore.open(directory, { create: true, durable: false });
  const snapshot = await vm.snapshot({ store, then: 'pause' });
  const before = openIn(directory);
  for (const open of [false, true]) {
    if (open) await snapshot.config();
    const begun = [snapshot.restore(), snapshot.restore({ verify: true })];
    const pooling = Pool.create(snapshot, { size: 1 });
    const flattened = snapshot.flatten({ durable: false });
    const resetting = vm.reset(snapshot);
    snapshot.close();
    for (const machine of (await Promise.all(begun)).map(tracked)) {
      await machine.resume();
      await untilCounted(machine);
      await machine.close();
    }
    await (await pooling).close();
    (await flattened).close();
    await resetting;
    expect(vm.status).toBe('paused');
  }
  await vm.close();
  await until('its files are closed', () => openIn(directory) <= before);
});

it('one in memory, too', async () => {
  const vm = await bootGuest('counter');
  const snapshot = await vm.snapshot();
  const restoring = snapshot.restore();
  const pooling = Pool.create(snapshot, { size: 1 });
  snapshot.close();
  const copy = tracked(await restoring);
  await copy.resume();
  await untilCounted(copy);
  await (await pooling).close();
  await expect(snapshot.restore()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
});
