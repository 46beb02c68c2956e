/** What a machine's end does to streams and promises, and what a caller's functions may do. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { finished } from 'node:stream/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Pool, type SnapshotOptions, SnapshotStore, type Vm } from '../../../lib/index.js';
import { KiB, MiB } from '../../../lib/units.js';
import { bootGuest, until } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

const uncaught: unknown[] = [];
const note = (error: unknown) => uncaught.push(error);
beforeEach(() => {
  process.on('uncaughtException', note).on('unhandledRejection', note);
});
afterEach(async () => {
  await turn();
  process.off('uncaughtException', note).off('unhandledRejection', note);
  expect(uncaught.splice(0)).toEqual([]);
});

const ENDS: Record<string, (vm: Vm) => Promise<unknown>> = {
  closed: (vm) => vm.close(),
  'killed and closed': async (vm) => {
    await vm.kill();
    await vm.close();
  },
  'saved and closed': (vm) => vm.snapshot({ store: join(scratch(), 's'), then: 'stop' }),
};

/** From a pool, or not. */
async function machines(kind: string): Promise<Vm> {
  const vm = await bootGuest('counter');
  if (kind === 'own') return vm;
  using instant = await vm.snapshot();
  const pool = await Pool.create(instant, { size: 1 });
  const pooled = await pool.get();
  void pool.close();
  await pooled.start();
  return pooled;
}

describe.each(['own', 'pooled'])('a machine (%s)', (kind) => {
  describe.each(Object.entries(ENDS))('that is %s', (_, end) => {
    it('ends its streams, lets pipes go, and drops what is typed', async () => {
      const vm = await machines(kind);
      const keyboard = new PassThrough();
      keyboard.pipe(vm.console).resume();
      vm.debug.resume();
      // More than the guest's queue takes: some of it is pending.
      const pending = new Promise<unknown>((resolve) => {
        vm.console.write(Buffer.alloc(KiB(100)), resolve);
      });
      await turn();
      keyboard.write('a');
      await end(vm);
      await Promise.all([finished(vm.console), finished(vm.debug), pending]);
      expect(vm.console.destroyed).toBe(true);
      expect(keyboard.listenerCount('data')).toBe(0);
      keyboard.write('b');
      vm.console.end('c');
      const told = await new Promise((resolve) => vm.console.write('d', resolve));
      expect(told).toMatchObject({ code: 'ERR_CLOSED' });
    });

    it('settles wait(), asked for before or after', async () => {
      const vm = await machines(kind);
      const before = vm.wait();
      await end(vm);
      const reason = end === ENDS['killed and closed'] ? 'killed' : 'closed';
      expect(await before).toMatchObject({ reason });
      expect(await vm.wait()).toMatchObject({ reason });
    });
  });
});

it('streams that are first asked for after the end have an end, too', async () => {
  const vm = await bootGuest('counter');
  await vm.close();
  vm.console.write('nobody hears');
  vm.console.resume();
  await Promise.all([finished(vm.console), vm.debug.toArray()]);
});

const later = async (error: unknown) => {
  await turn();
  throw error;
};
const OFFENCES: Record<string, (error: unknown) => unknown> = {
  throws: (error) => {
    throw error;
  },
  rejects: async (error) => {
    throw error;
  },
  'rejects later': later,
  'gives a thenable that throws': (error) => ({
    get then() {
      throw error;
    },
  }),
};

describe.each(Object.entries(OFFENCES))('a caller whose function %s', (_, offend) => {
  const mine = new Error('mine');

  it('gets that error from a snapshot: nothing is committed', async () => {
    const vm = await bootGuest('counter');
    vm.memory.write(0x400000n, Buffer.alloc(MiB(4), 1));
    const store = await SnapshotStore.open(scratch(), { create: true });
    const first = await vm.snapshot({ store, tag: 't' });
    const options: SnapshotOptions = { store, tag: 't', onProgress: () => offend(mine) };
    await expect(vm.snapshot(options)).rejects.toBe(mine);
    await expect(vm.snapshot({ ...options, parent: first })).rejects.toBe(mine);
    await expect(first.flatten({ tag: 't', onProgress: () => offend(mine) })).rejects.toBe(mine);
    await expect(first.verify({ onProgress: () => offend(mine) })).rejects.toBe(mine);
    expect(await store.resolve('t')).toBe(first.digest);
    expect(await store.list()).toHaveLength(1);
    expect(vm.status).toBe('running');
  });

  it("has it as the cause of its machine's end, from a claim or a page source", async () => {
    const vm = await bootGuest('counter');
    const saved = await vm.snapshot({ store: join(scratch(), 's') });
    const onError = vi.fn(() => offend(new Error('onError')));
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const source = { read: () => offend(mine) as never };
    const stop = await saved.restore({ paging: { source, onError } }).then(
      async (copy) => {
        await copy.start().catch(() => undefined);
        return (await copy.wait()).error;
      },
      (error: unknown) => error,
    );
    expect(stop).toMatchObject({ code: 'ERR_PAGE_SOURCE', cause: mine });
    await until('it is told', () => onError.mock.calls.length > 0 && warned.mock.calls.length > 0);
    expect(warned.mock.calls[0]![0]).toContain('onError');
    warned.mockRestore();
  });
});

describe('arguments are refused before anything happens', () => {
  const wrong = (value: unknown) => value as never;
  const REFUSED: Record<string, (vm: Vm, store: string) => Promise<unknown>> = {
    'fork(-1)': (vm) => vm.fork(-1),
    'fork(null)': (vm) => vm.fork(wrong(null)),
    'fork settle': (vm) => vm.fork({ settle: wrong('yes') }),
    'fork identity': (vm) => vm.fork({ identity: { clock: wrong('never') } }),
    'fork signal': (vm) => vm.fork({ signal: wrong({}) }),
    'snapshot then': (vm) => vm.snapshot({ then: wrong('stop') }),
    'snapshot null': (vm) => vm.snapshot(wrong(null)),
    'store then': (vm, store) => vm.snapshot({ store, then: wrong('never') }),
    'store tag': (vm, store) => vm.snapshot({ store, tag: 'not a tag' }),
    'store durable': (vm, store) => vm.snapshot({ store, durable: wrong(1) }),
    'store annotations': (vm, store) => vm.snapshot({ store, annotations: { a: wrong(1) } }),
    'store onProgress': (vm, store) => vm.snapshot({ store, onProgress: wrong('no') }),
    'store signal': (vm, store) => vm.snapshot({ store, signal: wrong('no') }),
    'store parent': (vm, store) => vm.snapshot({ store, parent: wrong({}) }),
    'store store': (vm) => vm.snapshot({ store: wrong(7) }),
    'reset to': (vm) => vm.reset(wrong({})),
    'reset identity': (vm) => vm.reset(undefined, { identity: { generation: wrong('x') } }),
    'dirty tracker': async (vm) => vm.dirty({ tracker: wrong('x') }).next(),
    'dirty every': async (vm) => vm.dirty({ every: -1 }).next(),
    'dirty signal': async (vm) => vm.dirty({ signal: wrong('x') }).next(),
    'pageIn range': (vm) => vm.pageIn({ gpa: wrong(1), length: 4096 }),
    'pageIn signal': (vm) => vm.pageIn({ signal: wrong('x') }),
    'claim handler': async (vm) => vm.claimPorts({ base: 0x80, read: wrong(1) }),
    'mmio handler': async (vm) => vm.claimMmio({ base: 1n << 40n, length: 8, write: wrong(1) }),
  };

  it.each(Object.entries(REFUSED))('%s', async (_, call) => {
    const vm = await bootGuest('counter');
    const saved = await vm.snapshot({ store: join(scratch(), 's') });
    const copy = await saved.restore({ paging: { faultBytes: KiB(4) } });
    const left = copy.paging!.pagesLeft;
    const store = join(scratch(), 'none');
    await expect(call(copy, store)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(copy.paging!.pagesLeft).toBe(left);
    expect(existsSync(store)).toBe(false);
    await copy.close();
  });
});
