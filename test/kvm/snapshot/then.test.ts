import { describe, expect, it } from 'vitest';
import { Snapshot, SnapshotStore } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import {
  bootGuest,
  count,
  createGuest,
  tracked,
  untilCounted,
  untilReady,
} from '../support/machines.js';
import { scratch } from '../support/scratch.js';

const newStore = () => SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
const FAST = { regs: { rsi: 64n } };

describe('then', () => {
  it.each([
    ['resume', 'running'],
    ['pause', 'paused'],
    ['stop', 'closed'],
    [undefined, 'running'],
  ] as const)('%s leaves a running machine %s', async (then, status) => {
    const vm = await bootGuest('counter', FAST);
    using snapshot = await vm.snapshot({ store: await newStore(), ...(then ? { then } : {}) });
    expect(vm.status).toBe(status);
    expect(snapshot.stats!.pauseMs).toBeGreaterThan(0);
    if (status === 'running') await untilCounted(vm);
  });

  it('pause leaves it at the instant of the snapshot', async () => {
    const vm = await bootGuest('counter', FAST);
    using snapshot = await vm.snapshot({ store: await newStore(), then: 'pause' });
    const copy = tracked(await snapshot.restore());
    expect(count(copy)).toBe(count(vm));
    expect(await copy.vcpus[0]!.getRegs()).toEqual(await vm.vcpus[0]!.getRegs());
  });

  it('resume does not start a machine that was paused', async () => {
    const vm = await bootGuest('counter', FAST);
    await vm.pause();
    using snapshot = await vm.snapshot({ store: await newStore() });
    expect(vm.status).toBe('paused');
    expect(snapshot.stats!.pauseMs).toBe(0);
  });

  it('anything else is refused', async () => {
    const vm = await createGuest('counter');
    await expect(
      vm.snapshot({ store: `${scratch()}/store`, then: 'explode' as never }),
    ).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });
});

describe('a snapshot', () => {
  it('of a machine that never ran starts from the beginning', async () => {
    const vm = await createGuest('counter', FAST);
    using snapshot = await vm.snapshot({ store: await newStore() });
    expect(vm.status).toBe('created');
    const copy = tracked(await snapshot.restore());
    await copy.start();
    await untilReady(copy);
    await vm.start();
    await untilReady(vm);
  });

  it('of a stopped machine can be looked at', async () => {
    const vm = await bootGuest('registers', { ring: 3 });
    vm.memory.write(GUEST_ABI.DATA + BigInt(GUEST_ABI.COMMAND), Buffer.from([3]));
    await vm.wait();
    using snapshot = await vm.snapshot({ store: await newStore() });
    const copy = tracked(await snapshot.restore());
    expect(await copy.vcpus[0]!.getRegs()).toEqual(await vm.vcpus[0]!.getRegs());
  });

  it('says what it cost, and what it holds', async () => {
    const store = await newStore();
    const vm = await bootGuest('counter', FAST);
    const steps: [number, number][] = [];
    using snapshot = await vm.snapshot({
      store,
      tag: 'warm',
      annotations: { purpose: 'test' },
      onProgress: (done, total) => {
        steps.push([done, total]);
      },
    });
    const { pauseMs, writeMs, bytes, pages } = snapshot.stats!;
    expect(pauseMs).toBeGreaterThan(0);
    expect(writeMs).toBeGreaterThan(0);
    expect(bytes).toBeGreaterThan(pages * 4096);
    // 2 MiB granules, of which at least one has content.
    expect(pages % 512).toBe(0);
    expect(pages).toBeGreaterThan(0);
    expect(steps.at(-1)![0]).toBe(steps.at(-1)![1]);
    for (const [i, [done]] of steps.entries()) {
      expect(done).toBeGreaterThanOrEqual(steps[i - 1]?.[0] ?? 0);
    }
    expect(await store.tags()).toEqual(['warm']);
    const config = await snapshot.config();
    expect(config.annotations).toEqual({ purpose: 'test' });
    expect(config.machine).toEqual(vm.describe());

    using opened = await Snapshot.open(store.path, 'warm');
    expect(opened.digest).toBe(snapshot.digest);
    expect(await opened.verify()).toBeDefined();
  });

  it('outlives its machine, and its machines outlive it', async () => {
    const vm = await bootGuest('counter', FAST);
    const snapshot = await vm.snapshot({ store: await newStore() });
    await vm.close();
    const copy = tracked(await snapshot.restore());
    snapshot.close();
    snapshot.close();
    await copy.resume();
    await untilCounted(copy);
    // Opened again at the next use.
    const another = tracked(await snapshot.restore());
    await another.resume();
    await untilCounted(another);
    snapshot.close();
  });

  it('restores any number of machines at once', async () => {
    const vm = await bootGuest('counter', FAST);
    using snapshot = await vm.snapshot({ store: await newStore() });
    const copies = await Promise.all(Array.from({ length: 20 }, () => snapshot.restore()));
    copies.forEach(tracked);
    await Promise.all(copies.map((copy) => copy.resume()));
    await Promise.all(copies.map((copy) => untilCounted(copy)));
  });
});
