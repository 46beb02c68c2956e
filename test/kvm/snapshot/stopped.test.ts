/** A machine that its guest has ended: what is made of it has ended too, in the same way. */
import { describe, expect, it } from 'vitest';
import { Pool, SnapshotStore, type Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { rounds } from '../support/host.js';
import { createVm, tracked } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

// mov al,7; out 0xf4,al; mov al,8; out 0xf4,al; hlt
const TWO_EXITS = Uint8Array.from([0xb0, 7, 0xe6, 0xf4, 0xb0, 8, 0xe6, 0xf4, 0xf4]);
const STOP = { reason: 'exit-port', code: 7 };

const ready = (image = TWO_EXITS): Promise<Vm> =>
  createVm({ bare: { image, format: 'flat', mode: 'real', ring: 0 }, memory: MiB(2) });

async function ended(): Promise<Vm> {
  const vm = await ready();
  await vm.start();
  expect(await vm.wait()).toMatchObject(STOP);
  return vm;
}

async function expectStopped(vm: Vm): Promise<void> {
  expect(vm.status).toBe('stopped');
  expect(await vm.wait()).toMatchObject(STOP);
  await expect(vm.start()).rejects.toMatchObject({ code: 'ERR_STATE' });
  expect((await vm.saveState()).stopped).toEqual(STOP);
}

const newStore = () => SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });

describe('a stopped machine', () => {
  it('gives stopped forks, and restores, in memory and through files', async () => {
    const vm = await ended();
    await expectStopped(tracked((await vm.fork(1))[0]!));
    using snapshot = await vm.snapshot();
    const copy = tracked(await snapshot.restore());
    await expectStopped(copy);
    await expectStopped(tracked((await copy.fork(1))[0]!));
    const store = await newStore();
    using saved = await vm.snapshot({ store });
    await expectStopped(tracked(await saved.restore()));
    await expectStopped(tracked(await saved.restore({ paging: {} })));
    await expectStopped(vm);
  });

  it('gives a pool whose machines are stopped', async () => {
    const vm = await ended();
    using snapshot = await vm.snapshot();
    await using pool = await Pool.create(snapshot, { size: 1, max: 1 });
    for (let round = 0; round < 2; round++) {
      await using pooled = await pool.get();
      await expectStopped(pooled);
    }
  });

  it('runs on after a reset to an instant before, and not after one to its end', async () => {
    const vm = await ready();
    using before = await vm.snapshot();
    await vm.start();
    await vm.wait();
    using after = await vm.snapshot();
    await vm.reset(before);
    expect(vm.status).toBe('paused');
    const next = vm.wait();
    await vm.start();
    expect(await next).toMatchObject(STOP);
    await vm.reset(before);
    const waiting = vm.wait();
    await vm.reset(after);
    expect(await waiting).toMatchObject(STOP);
    await expectStopped(vm);
    await vm.kill();
    expect(vm.status).toBe('poisoned');
    await vm.reset();
    await expectStopped(vm);
  });

  it('has a state that stops another machine, and runs on from one that does not', async () => {
    const vm = await ready();
    const fresh = await vm.saveState();
    expect(fresh.stopped).toBeUndefined();
    await vm.start();
    await vm.wait();
    const over = await vm.saveState();
    await vm.loadState(fresh);
    expect(vm.status).toBe('paused');
    const next = vm.wait();
    await vm.start();
    expect(await next).toMatchObject(STOP);
    const other = await ready();
    await other.loadState(over);
    await expectStopped(other);
  });

  it('is stopped in each snapshot that is taken while it ends, or runs to that end', async () => {
    // mov cx,N; loop .; then the same
    for (let round = 0; round < rounds(30); round++) {
      const turns = 40 * round;
      const vm = await ready(
        Uint8Array.from([0xb9, turns & 0xff, turns >> 8 || 1, 0xe2, 0xfe, ...TWO_EXITS]),
      );
      await vm.start();
      const copy = tracked((await vm.fork(1))[0]!);
      if (copy.status === 'paused') await copy.start();
      expect(await copy.wait()).toMatchObject(STOP);
      expect(await vm.wait()).toMatchObject(STOP);
      await copy.close();
      await vm.close();
    }
  });
});
