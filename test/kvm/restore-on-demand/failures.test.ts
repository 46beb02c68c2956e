import { readdirSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { KvmsnapError, PageSource, PagingOptions, Snapshot, Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import {
  type BootOptions,
  bootGuest,
  count,
  createVm,
  setWord,
  stopOf,
  tracked,
  until,
  word,
} from '../support/machines.js';
import { createRing3Smp } from '../support/multi.js';
import { newStore, onDemand, savedPattern, sourceOf, verified } from './saved.js';

const never = () => new Promise<never>(() => {});

/** Lets the guest go for its memory, and does not wait for it. */
async function setGoing(vm: Vm): Promise<void> {
  await vm.pageIn({ gpa: GUEST_ABI.DATA, length: 4096 });
  setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
  await vm.start();
}

/** A source that does something of its own from the guest's own pages on. */
async function from(
  snapshot: Snapshot,
  gpa: bigint,
  instead: PageSource['read'],
): Promise<PageSource> {
  const good = await sourceOf(snapshot);
  return {
    read: (at, length, signal) =>
      at + BigInt(length) > gpa ? instead(at, length, signal) : good.read(at, length, signal),
  };
}

const BAD: Record<string, PageSource['read']> = {
  'rejects after a while': async () => {
    await sleep(5);
    throw new Error('the network is down');
  },
  'throws at once': () => {
    throw new Error('the network is down');
  },
  'throws no error': () => Promise.reject('the network is down'),
  'gives a page too little': (_gpa, length) => new Uint8Array(length - 4096),
  'gives a byte too much': async (_gpa, length) => new Uint8Array(length + 1),
  'gives nothing': () => undefined as never,
  'gives other bytes': (_gpa, length) => new Uint16Array(length / 2) as never,
};

describe('a source that', () => {
  it.each(Object.keys(BAD))('%s ends the machine with an error', async (name) => {
    const snapshot = await savedPattern();
    const told: KvmsnapError[] = [];
    const vm = await onDemand(snapshot, {
      source: await from(snapshot, 0x400000n, BAD[name]!),
      onError: (error) => told.push(error),
    });
    const errors = word.bind(undefined, vm, GUEST_ABI.ERRORS);
    await setGoing(vm);
    const stop = await stopOf(vm);
    expect(stop).toMatchObject({ reason: 'error', error: { code: 'ERR_PAGE_SOURCE' } });
    expect(stop.error!.message).toContain('0x400000');
    expect(vm.status).toBe('poisoned');
    expect(told).toEqual([stop.error]);
    if (name.startsWith('rejects')) expect(stop.error!.cause).toBeInstanceOf(Error);
    // No vCPU went on with bytes that were made up: the guest would have counted them.
    await until('what came can be read', () => {
      try {
        return errors() === 0n;
      } catch {
        return false;
      }
    });
    expect(vm.memory.read(0x3f0000n, 4096).some((byte) => byte !== 0)).toBe(true);
    for (const call of [
      () => vm.memory.read(0x400000n, 1),
      () => vm.memory.write(0x400000n, Buffer.alloc(4096)),
    ]) {
      expect(call).toThrow(expect.objectContaining({ code: 'ERR_PAGE_SOURCE' }));
    }
    await expect(vm.snapshot()).rejects.toMatchObject({ code: 'ERR_POISONED' });
    await expect(vm.start()).rejects.toMatchObject({ code: 'ERR_POISONED' });
    expect(vm.paging).toMatchObject({ active: false });
    // It heals like any other: from the files, which are whole.
    await vm.reset();
    expect(vm.paging).toBeUndefined();
    await verified(vm);
    expect(errors()).toBe(0n);
  });

  it('takes longer than the timeout allows ends the machine', async () => {
    const snapshot = await savedPattern();
    let signal: AbortSignal | undefined;
    const vm = await onDemand(snapshot, {
      timeout: 50,
      source: await from(snapshot, 0x400000n, (_gpa, _length, given) => {
        signal = given;
        return never();
      }),
    });
    await setGoing(vm);
    const { error } = await stopOf(vm);
    expect(error).toMatchObject({
      code: 'ERR_PAGE_SOURCE',
      cause: { code: 'ERR_TIMEOUT' },
      message: expect.stringContaining('50 ms'),
    });
    expect(signal?.aborted).toBe(true);
  });

  it('gives nothing for what the restore itself needs ends it by its signal, and nothing is left', async () => {
    await using vm = await createVm({ memory: MiB(4), generationId: { gpa: 0x200000n } });
    vm.memory.write(0x200000n, Buffer.alloc(4096, 1));
    using snapshot = await vm.snapshot({ store: await newStore() });
    const controller = new AbortController();
    const wanted: AbortSignal[] = [];
    const source: PageSource = {
      read(_gpa, _length, signal) {
        wanted.push(signal);
        controller.abort(new Error('enough'));
        return never();
      },
    };
    const { signal } = controller;
    await expect(snapshot.restore({ paging: { source }, signal })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
      cause: { message: 'enough' },
    });
    expect(wanted).toHaveLength(1);
    await until('the source hears of it', () => wanted.every(({ aborted }) => aborted));
  });

  it('fails in a fetch makes the fetch fail, and poisons a machine that stands', async () => {
    const snapshot = await savedPattern();
    const vm = await onDemand(snapshot, {
      source: await from(snapshot, 0x400000n, BAD['throws at once']!),
    });
    await vm.pageIn({ gpa: 0x300000n, length: 4096 });
    await expect(vm.pageIn()).rejects.toMatchObject({ code: 'ERR_PAGE_SOURCE' });
    expect(await stopOf(vm)).toMatchObject({ error: { code: 'ERR_PAGE_SOURCE' } });
    // Also later: its memory is not there.
    await expect(vm.pageIn()).rejects.toMatchObject({ code: 'ERR_PAGE_SOURCE' });
    await expect(vm.pageIn({ gpa: 0x400000n, length: 1 })).rejects.toMatchObject({
      code: 'ERR_PAGE_SOURCE',
    });
    await vm.reset();
    await expect(vm.pageIn()).resolves.toBeUndefined();
  });

  it('fails before the machine is started keeps it from that', async () => {
    const snapshot = await savedPattern();
    let fail: (error: Error) => void = () => {};
    const read = () =>
      new Promise<never>((_, reject) => {
        fail = reject;
      });
    const vm = await onDemand(snapshot, {
      source: { read },
      prefetch: [{ gpa: 0x300000n, count: 4 }],
    });
    expect(vm.status).toBe('paused');
    await until('the source is asked', () => {
      fail(new Error('gone'));
      return vm.status !== 'paused';
    });
    expect(await stopOf(vm)).toMatchObject({ error: { code: 'ERR_PAGE_SOURCE' } });
    await expect(vm.start()).rejects.toMatchObject({ code: 'ERR_POISONED' });
  });
});

it('two vCPUs that wait are both released when their source fails', async () => {
  const vm = await createRing3Smp(2);
  using snapshot = await vm.snapshot({ store: await newStore() });
  let fail: (error: Error) => void = () => {};
  let asked = 0;
  const copy = await onDemand(snapshot, {
    faultBytes: 4096,
    source: {
      read: () => {
        asked++;
        return new Promise((_, reject) => {
          fail = reject;
        });
      },
    },
  });
  await copy.start();
  await until('they wait', () => asked > 0 && copy.paging!.faults >= 1);
  await sleep(20);
  fail(new Error('gone'));
  expect(await stopOf(copy)).toMatchObject({ error: { code: 'ERR_PAGE_SOURCE' } });
  await copy.close();
});

it('a memory file that is cut short while the machine runs on it ends the machine', async () => {
  const snapshot = await savedPattern();
  const vm = await onDemand(snapshot);
  const blobs = join(snapshot.store.path, 'blobs', 'sha256');
  for (const name of readdirSync(blobs)) {
    if (statSync(join(blobs, name)).size > MiB(4)) truncateSync(join(blobs, name), MiB(4));
  }
  await setGoing(vm);
  const stop = await stopOf(vm);
  expect(stop.error).toMatchObject({
    code: 'ERR_PAGE_SOURCE',
    message: expect.stringContaining('cut short'),
  });
});

describe('with a page that never comes', () => {
  async function waiting(options: BootOptions = {}): Promise<{ vm: Vm; signals: AbortSignal[] }> {
    const snapshot = await savedPattern(options);
    const signals: AbortSignal[] = [];
    const vm = await onDemand(snapshot, {
      source: await from(snapshot, 0x400000n, (_gpa, _length, signal) => {
        signals.push(signal);
        return never();
      }),
    });
    await setGoing(vm);
    await until('the guest waits for it', () => signals.length > 0);
    return { vm, signals };
  }

  it('the machine can be closed', async () => {
    const { vm, signals } = await waiting();
    await vm.close();
    expect(vm.status).toBe('closed');
    await until('the source hears of it', () => signals.every(({ aborted }) => aborted));
  });

  it('a fetch ends with the machine', async () => {
    const { vm } = await waiting();
    const fetching = expect(vm.pageIn()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await vm.close();
    await fetching;
  });

  // With an irqchip, and interrupts on, KVM halts a vCPU that waits for a page, and must let it go again.
  it.each([
    ['', {}],
    [', with an irqchip', { irqchip: true, regs: { rflags: 0x3202n } }],
  ])('the machine can be killed, looked at and reset%s', async (_, options) => {
    const { vm, signals } = await waiting(options);
    const passes = count(vm);
    await vm.kill();
    expect(vm.status).toBe('poisoned');
    expect(await stopOf(vm)).toMatchObject({ reason: 'killed' });
    await until('the source hears of it', () => signals.every(({ aborted }) => aborted));
    await until('what came can be read', () => {
      try {
        return count(vm) === passes;
      } catch {
        return false;
      }
    });
    await vm.reset();
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });

  it('calls that need all memory are aborted by their signal, and nothing is lost', async () => {
    const { vm } = await waiting();
    const late = () => ({ signal: AbortSignal.timeout(30) });
    const store = await newStore();
    await expect(vm.pageIn(late())).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(vm.snapshot({ store, ...late() })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(vm.fork({ count: 1, ...late() })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(vm.dirty({ ...late() }).next()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(await store.list()).toEqual([]);
    expect(vm.status).toBe('running');
    expect(vm.paging).toMatchObject({ active: true });
  });

  it('the native calls themselves refuse instead of waiting', async () => {
    const snapshot = await savedPattern();
    const vm = await onDemand(snapshot, { source: { read: never } });
    await expect(vm.memory.removeSlot(0)).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringContaining('pageIn'),
    });
    // These need no memory.
    await vm.vcpus[0]!.getRegs();
    await vm.saveState();
    await vm.reset();
    await verified(vm);
    await vm.pause();
    const other = await onDemand(snapshot, { source: { read: never } });
    await other.memory.addSlot({ slot: 7, gpa: 0x40000000n, size: 4096 });
    expect(other.memory.read(0x40000000n, 1)).toHaveLength(1);
  });
});

describe('a vCPU that waits inside KVM for a page that never comes', () => {
  // inc qword [0x400000]; jmp back
  const image = Uint8Array.from([0x48, 0xff, 0x04, 0x25, 0, 0, 0x40, 0, 0xeb, 0xf6]);
  async function stuck(ring: 0 | 3, first: bigint): Promise<Vm> {
    const bare = { image, format: 'flat', loadAddress: 0x100000n, mode: 'long', ring } as const;
    const guest = await createVm({ bare, memory: MiB(8), irqchip: false });
    guest.memory.write(0x400000n, Buffer.from('x'));
    const snapshot = await guest.snapshot({ store: await newStore() });
    onTestFinished(() => snapshot.close());
    let waits = false;
    const vm = await onDemand(snapshot, {
      faultBytes: 4096,
      source: {
        read: (gpa, length) => {
          if (gpa < first) return guest.memory.read(gpa, length);
          waits = true;
          return never();
        },
      },
    });
    await vm.start();
    await until('the guest waits for it', () => waits);
    return vm;
  }

  describe.each([
    ['its data, in ring 3', 3, 0x400000n],
    ['its data, in ring 0', 0, 0x400000n],
    ['its page tables, in ring 3', 3, 0n],
    ['its page tables, in ring 0', 0, 0n],
  ] as const)('(%s)', (_, ring, first) => {
    it('does not keep a machine from being reset', async () => {
      const vm = await stuck(ring, first);
      let stopped = false;
      void vm.wait().then(() => {
        stopped = true;
      });
      await vm.reset();
      expect(vm.status).toBe('paused');
      expect(vm.paging).toBeUndefined();
      expect(vm.memory.read(0x400000n, 1).toString()).toBe('x');
      await vm.start();
      await until('the guest counts', () => vm.memory.read(0x400000n, 1).toString() !== 'x');
      // Nobody was told of an end: there was none.
      expect(stopped).toBe(false);
      await vm.kill();
      expect(await vm.wait()).toMatchObject({ reason: 'killed' });
    });

    it('does not keep it from being reset to another machine, which is refused', async () => {
      const vm = await stuck(ring, first);
      const other = await createVm({ memory: MiB(4) });
      using snapshot = await other.snapshot();
      await expect(vm.reset(snapshot)).rejects.toMatchObject({ code: 'ERR_STATE' });
      expect(vm.status).toBe('running');
      expect(vm.paging).toMatchObject({ active: true });
    });

    it.each(['kill', 'close'] as const)('does not keep it from its end by %s', async (end) => {
      const vm = await stuck(ring, first);
      await vm[end]();
      expect(vm.status).toBe(end === 'kill' ? 'poisoned' : 'closed');
    });
  });
});

it('a machine that was closed keeps no descriptor, though its object lives on', async () => {
  const snapshot = await savedPattern();
  const open = () => readdirSync('/proc/self/fd').length;
  const closed: Vm[] = [];
  const life = async (paging: PagingOptions) => {
    const vm = await onDemand(snapshot, paging);
    closed.push(vm);
    await setGoing(vm);
    if (closed.length % 2) await vm.pageIn();
    await vm.close();
    snapshot.close();
  };
  const source = await sourceOf(snapshot);
  await life({});
  // Files and sockets of vitest's own come and go: the least of some rounds counts.
  const least = async () => {
    let few = Number.POSITIVE_INFINITY;
    for (let look = 0; look < 10; look++) {
      await sleep(5);
      few = Math.min(few, open());
    }
    return few;
  };
  const before = await least();
  for (let round = 0; round < 4; round++) {
    await life({});
    await life({ source, prefetch: [{ gpa: 0n, count: 64 }] });
  }
  expect((await least()) - before).toBeLessThanOrEqual(0);
  expect(closed.every(({ status }) => status === 'closed')).toBe(true);
});

it('machines on demand come and go while their pages are on the way', async () => {
  const guest = await bootGuest('counter');
  using snapshot = await guest.snapshot({ store: await newStore() });
  for (let round = 0; round < 30; round++) {
    const source: PageSource = {
      read: async (_gpa, length) => {
        await sleep(round % 4);
        return new Uint8Array(length);
      },
    };
    const vm = tracked(
      await snapshot.restore({
        paging: { ...(round % 2 ? { source } : {}), prefetch: [{ gpa: 0n, count: 4096 }] },
      }),
    );
    await vm.start();
    void vm.pageIn().catch(() => undefined);
    await sleep(round % 5);
    if (round % 3 === 0) await vm.kill();
    await vm.close();
  }
});
