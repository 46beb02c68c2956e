import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { GiB, MiB } from '../../../lib/units.js';
import { bitmapOf, pagesOf, range } from '../support/bits.js';
import { createGuest, createVm, until } from '../support/machines.js';
import { createPorts, type Operation, runAgain, runList } from '../support/ports.js';

const FIRST = Number(GUEST_ABI.PAGES) / 4096;
const HIGH = 0x100000000n;

const dirty = async (vm: Vm, slot = 0): Promise<number[]> =>
  pagesOf((await vm.memory.getDirtyLog(slot)).bitmap);

/** Every written page must be there; KVM may name others that the guest only touched. */
const covers = (found: number[], wanted: number[]): void => {
  const set = new Set(found);
  expect(wanted.filter((page) => !set.has(page))).toEqual([]);
};

/** A guest that writes `pages` pages from GUEST_PAGES up, over and over. Dirty log is on. */
async function createTouch(pages: number, manualDirtyLog = false): Promise<Vm> {
  const vm = await createGuest('touch', { regs: { r15: BigInt(pages) }, manualDirtyLog });
  await vm.memory.setSlotFlags(0, { logDirtyPages: true });
  return vm;
}

/** Lets the guest make at least one whole pass. */
async function passes(vm: Vm, more: number): Promise<void> {
  let done = 0;
  const claim = vm.claimPorts({
    base: GUEST_ABI.PORT_PASS,
    write: () => {
      done++;
    },
  });
  await vm.resume();
  // The first may have been under way.
  await until('the guest passes over its pages', () => done > more);
  await vm.pause();
  claim.release();
}

describe('the dirty log', () => {
  it('has every page that the guest wrote, and the next one starts from nothing', async () => {
    const vm = await createTouch(300);
    await passes(vm, 1);
    covers(await dirty(vm), range(FIRST, 300));
    expect(await dirty(vm)).toEqual([]);
    await passes(vm, 1);
    const again = await dirty(vm);
    covers(again, range(FIRST, 300));
    // Nothing beyond what it touches: its own code, data and tables lie below.
    expect(again.filter((page) => page >= FIRST + 300)).toEqual([]);
  });

  it('loses no write while it is read from a running guest: 200 harvests', async () => {
    const pages = 64;
    const vm = await createGuest('writer', { regs: { r15: BigInt(pages) } });
    await vm.memory.setSlotFlags(0, { logDirtyPages: true });
    const generations = () =>
      range(FIRST, pages).map((page) => vm.memory.read(BigInt(page * 4096), 8).readBigUInt64LE());
    await vm.resume();
    let before = generations();
    let harvest = new Set<number>();
    let changes = 0;
    for (let round = 0; round < 200; round++) {
      const earlier = harvest;
      harvest = new Set(await dirty(vm));
      const after = generations();
      // Changed since the last look: after the harvest before it, or by now after this one, too.
      const changed = range(FIRST, pages).filter((_, i) => after[i] !== before[i]);
      const late = new Set<number>();
      for (const page of changed) if (!harvest.has(page) && !earlier.has(page)) late.add(page);
      if (late.size > 0) {
        harvest = new Set([...harvest, ...(await dirty(vm))]);
        covers([...harvest], [...late]);
      }
      changes += changed.length;
      before = after;
    }
    expect(changes).toBeGreaterThan(pages);
  });

  it('has what the host wrote, joined, once', async () => {
    const vm = await createTouch(4);
    await vm.memory.getDirtyLog(0);
    vm.memory.write(0x400000n, Buffer.from('x'));
    vm.memory.write(0x401fffn, Buffer.from('ab'));
    vm.memory.write(BigInt(MiB(16) - 1), Buffer.from('z'));
    expect(await dirty(vm)).toEqual([0x400, 0x401, 0x402, 4095]);
    expect(await dirty(vm)).toEqual([]);
    vm.memory.write(0x400000n, Buffer.from('y'));
    await passes(vm, 1);
    covers(await dirty(vm), [...range(FIRST, 4), 0x400]);
  });

  it('starts when it is switched on: what was loaded before is not in it', async () => {
    const vm = await createVm({ memory: MiB(1), irqchip: false });
    vm.memory.write(0n, Buffer.alloc(MiB(1), 1));
    await vm.memory.setSlotFlags(0, { logDirtyPages: true });
    expect(await dirty(vm)).toEqual([]);
  });

  it('counts its bits', async () => {
    const vm = await createTouch(1);
    await vm.memory.getDirtyLog(0);
    vm.memory.write(0x400000n, Buffer.alloc(10 * 4096, 1));
    expect(await vm.memory.getDirtyLog(0)).toMatchObject({ slot: 0, count: 10 });
  });

  it('belongs to a slot: one below the hole and one above 4 GiB', async () => {
    const low = 0x400000n;
    const list: Operation[] = [
      { op: 'store', size: 8, address: low, value: 1n },
      { op: 'store', size: 8, address: HIGH + 0x5008n, value: 2n },
      { op: 'store', size: 8, address: HIGH + BigInt(MiB(8)) - 8n, value: 3n },
    ];
    const vm = await createPorts(list, { memory: GiB(3) + MiB(8) });
    await vm.memory.setSlotFlags(0, { logDirtyPages: true });
    await vm.memory.setSlotFlags(1, { logDirtyPages: true });
    await runList(vm, list);
    await vm.pause();
    vm.memory.write(HIGH + 0x9000n, Buffer.from('host'));
    covers(await dirty(vm, 0), [Number(low) / 4096]);
    expect(await dirty(vm, 1)).toEqual([5, 9, 2047]);
    expect(await dirty(vm, 1)).toEqual([]);
    await vm.resume();
    await runAgain(vm);
    await vm.pause();
    expect(await dirty(vm, 1)).toEqual([5, 2047]);
  });

  it('goes on across a freeze, which copies nothing and loses nothing', async () => {
    const { scratch } = await import('../support/scratch.js');
    const vm = await createTouch(50);
    const store = `${scratch()}/store`;
    for (let round = 0; round < 3; round++) {
      await passes(vm, 1);
      const snapshot = await vm.snapshot({ store, durable: false });
      snapshot.close();
      covers(await dirty(vm), range(FIRST, 50));
      await passes(vm, 1);
      covers(await dirty(vm), range(FIRST, 50));
    }
  });

  it('of a slot that does not log is refused', async () => {
    const vm = await createVm({ memory: MiB(1), irqchip: false });
    await expect(vm.memory.getDirtyLog(0)).rejects.toMatchObject({
      code: 'ERR_IOCTL',
      syscall: 'KVM_GET_DIRTY_LOG',
    });
  });
});

describe('the dirty log with manual protection', () => {
  it('stays until it is cleared, and is cleared in chunks', async () => {
    const pages = 256;
    const vm = await createTouch(pages, true);
    await passes(vm, 1);
    covers(await dirty(vm), range(FIRST, pages));
    // Reading has not cleared it.
    covers(await dirty(vm), range(FIRST, pages));

    const total = MiB(16) / 4096;
    for (let first = 0; first < total; first += 64) {
      await vm.memory.clearDirtyLog(0, {
        firstPage: first,
        pages: 64,
        bitmap: new Uint8Array(8).fill(0xff),
      });
    }
    expect(await dirty(vm)).toEqual([]);
    await passes(vm, 1);
    covers(await dirty(vm), range(FIRST, pages));
  });

  it('clears those pages only whose bits are set', async () => {
    const vm = await createTouch(128, true);
    await passes(vm, 1);
    const cleared = range(0, 64).filter((page) => page % 2 === 0);
    await vm.memory.clearDirtyLog(0, {
      firstPage: FIRST,
      pages: 64,
      bitmap: bitmapOf(cleared, 64),
    });
    const left = await dirty(vm);
    const gone = new Set(cleared.map((page) => FIRST + page));
    covers(
      left,
      range(FIRST, 128).filter((page) => !gone.has(page)),
    );
    expect(left.filter((page) => gone.has(page))).toEqual([]);
  });

  it('keeps what the host wrote until that is cleared', async () => {
    const vm = await createTouch(1, true);
    vm.memory.write(0x400000n, Buffer.alloc(3 * 4096, 1));
    const host = [0x400, 0x401, 0x402];
    covers(await dirty(vm), host);
    covers(await dirty(vm), host);
    await vm.memory.clearDirtyLog(0, {
      firstPage: 0x400,
      pages: 64,
      bitmap: bitmapOf([0, 2], 64),
    });
    expect((await dirty(vm)).filter((page) => host.includes(page))).toEqual([0x401]);
  });

  it.each([
    ['at an odd page', { firstPage: 1, pages: 64, bitmap: new Uint8Array(8) }],
    ['of an odd number of pages', { firstPage: 0, pages: 63, bitmap: new Uint8Array(8) }],
    ['beyond the end', { firstPage: 4096, pages: 64, bitmap: new Uint8Array(8) }],
    ['that wraps', { firstPage: 2 ** 52, pages: 64, bitmap: new Uint8Array(8) }],
    ['with too few bits', { firstPage: 0, pages: 128, bitmap: new Uint8Array(8) }],
  ])('refuses to clear a range %s', async (_what, chunk) => {
    const vm = await createTouch(1, true);
    await expect(vm.memory.clearDirtyLog(0, chunk)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
  });

  it('needs a machine that was made for it', async () => {
    const vm = await createTouch(1);
    await expect(
      vm.memory.clearDirtyLog(0, { firstPage: 0, pages: 64, bitmap: new Uint8Array(8) }),
    ).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(/manualDirtyLog/),
    });
  });
});
