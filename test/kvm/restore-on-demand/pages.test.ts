import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { MSR, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { GiB, MiB } from '../../../lib/units.js';
import { begin, bootDirtier, type Round, roundsDone } from '../support/dirtier.js';
import { bootGuest, count, createVm, until, untilCounted, word } from '../support/machines.js';
import { bootRing3Smp, untilAllCount } from '../support/multi.js';
import { newStore, onDemand, savedPattern, sourceOf, verified } from './saved.js';

const HIGH = 0x100000000n;

/** A round of the dirtier, of which nothing is read afterwards: its pages may not be there. */
async function write(vm: Vm, round: Round): Promise<void> {
  const before = roundsDone(vm, round.vcpu);
  begin(vm, { ...round, journal: false });
  await until('the round is done', () => roundsDone(vm, round.vcpu) > before);
}

describe.each(['file', 'JavaScript'])('memory on demand, from %s', (from) => {
  const sourceFor = async (snapshot: Awaited<ReturnType<typeof savedPattern>>) =>
    from === 'file' ? {} : { source: await sourceOf(snapshot) };

  it.each([false, true])('is as it was saved, page by page (irqchip %s)', async (irqchip) => {
    const snapshot = await savedPattern({ memory: MiB(32), irqchip });
    const vm = await onDemand(snapshot, await sourceFor(snapshot));
    expect(vm.status).toBe('paused');
    expect(vm.paging).toMatchObject({ active: true, prefetchedPages: 0, fetchedPages: 0 });
    const pages = MiB(32) / 4096;
    expect(vm.paging!.pagesLeft).toBeGreaterThan(pages - 512);
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
    const facts = vm.paging!;
    expect(facts.faults).toBeGreaterThan(400);
    expect(facts.faultedPages).toBeGreaterThan(7000);
    expect(facts.bytes).toBe((facts.faultedPages + facts.fetchedPages) * 4096);
    expect(facts.latencyUs.p50).toBeGreaterThan(0);
    expect(facts.latencyUs.p99).toBeGreaterThanOrEqual(facts.latencyUs.p50);
    // Whole memory is the same, too.
    await vm.pageIn();
    expect(vm.paging).toMatchObject({ active: false, pagesLeft: 0 });
    expect(vm.status).toBe('running');
  });

  it('comes for two vCPUs that touch the same pages, and different ones', async () => {
    const source = await bootRing3Smp(2);
    using same = await source.snapshot({ store: await newStore(), then: 'stop' });
    const both = await onDemand(same, { ...(await sourceFor(same)), faultBytes: 4096 });
    await both.start();
    await both.pageIn({ gpa: GUEST_ABI.DATA, length: GUEST_ABI.DATA_SIZE });
    await untilAllCount(both);

    const two = await bootDirtier({ vcpus: 2, memory: MiB(64) });
    for (const vcpu of [0, 1]) await write(two, { pages: 2000, vcpu });
    using apart = await two.snapshot({ store: await newStore(), then: 'stop' });
    const vm = await onDemand(apart, { ...(await sourceFor(apart)), faultBytes: 4096 });
    await vm.start();
    await vm.pageIn({ gpa: GUEST_ABI.DATA, length: GUEST_ABI.DATA_SIZE });
    const before = [0, 1].map((vcpu) => roundsDone(vm, vcpu));
    // In an order of their own each: they meet at many pages.
    await Promise.all([0, 1].map((vcpu) => write(vm, { pages: 2000, seed: 7 + vcpu, vcpu })));
    expect([0, 1].map((vcpu) => roundsDone(vm, vcpu))).toEqual(before.map((n) => n + 1n));
    expect(vm.paging!.faults).toBeGreaterThan(1500);
  });

  it('has the memory above 4 GiB as well', async () => {
    const memory = GiB(3) + MiB(64);
    const vm = await bootDirtier({ memory });
    await write(vm, { pages: 300, base: HIGH + 4096n * 1000n });
    vm.memory.write(HIGH + 0x1001n, Buffer.from('above the hole'));
    vm.memory.write(0xbffff000n, Buffer.from('below the hole'));
    using snapshot = await vm.snapshot({ store: await newStore() });
    const copy = await onDemand(snapshot, await sourceFor(snapshot));
    await copy.start();
    await copy.pageIn({ gpa: GUEST_ABI.DATA, length: GUEST_ABI.DATA_SIZE });
    await write(copy, { pages: 300, base: HIGH + 4096n * 1000n });
    await copy.pageIn();
    expect(copy.memory.read(HIGH + 0x1001n, 14).toString()).toBe('above the hole');
    expect(copy.memory.read(0xbffff000n, 14).toString()).toBe('below the hole');
    const zeros = copy.memory.read(HIGH + BigInt(MiB(32)), MiB(1));
    expect(zeros.every((byte) => byte === 0)).toBe(true);
  });
});

describe('the host', () => {
  it('reads and writes memory that a file has, whether it is there or not', async () => {
    const snapshot = await savedPattern();
    const vm = await onDemand(snapshot);
    const whole = await snapshot.restore();
    expect(vm.memory.read(0x300000n, MiB(1)).equals(whole.memory.read(0x300000n, MiB(1)))).toBe(
      true,
    );
    await whole.close();
    expect(vm.paging).toMatchObject({ fetchedPages: 256, faults: 0 });
    vm.memory.write(0x500123n, Buffer.from('half a page'));
    expect(vm.memory.read(0x500123n, 11).toString()).toBe('half a page');
    expect(() => vm.memory.read(BigInt(MiB(16)), 1)).toThrow(
      expect.objectContaining({ code: 'ERR_GUEST_ADDRESS' }),
    );
  });

  it('is told to fetch what only JavaScript can bring, instead of waiting for itself', async () => {
    const snapshot = await savedPattern();
    const source = await sourceOf(snapshot);
    const vm = await onDemand(snapshot, { source });
    const missing = expect.objectContaining({
      code: 'ERR_STATE',
      message: expect.stringContaining('pageIn'),
    });
    expect(() => vm.memory.read(0x300000n, 8)).toThrow(missing);
    expect(() => vm.memory.write(0x300000n, Buffer.alloc(8))).toThrow(missing);
    await vm.pageIn({ gpa: 0x300ff8n, length: 16 });
    expect(source.asked.slice(-1)).toEqual([{ gpa: 0x300000n, length: 8192 }]);
    expect(vm.memory.read(0x300000n, 8192)).toHaveLength(8192);
    expect(() => vm.memory.read(0x302000n, 1)).toThrow(missing);
    vm.memory.write(0x300000n, Buffer.from('there'));
    // What is there is not asked for again.
    await vm.pageIn({ gpa: 0x300000n, length: 8192 });
    expect(source.asked.filter(({ gpa }) => gpa === 0x300000n)).toHaveLength(1);
    await vm.pageIn();
    expect(vm.memory.read(0x300000n, 5).toString()).toBe('there');
    expect(vm.memory.read(0n, MiB(16))).toHaveLength(MiB(16));
  });

  it('sees its event loop turn while the guest and a read wait for a slow source', async () => {
    const snapshot = await savedPattern();
    let open = 0;
    let most = 0;
    const source = await sourceOf(snapshot, async () => {
      most = Math.max(most, ++open);
      await sleep(20);
      open--;
    });
    const vm = await onDemand(snapshot, { source });
    let turns = 0;
    const timer = setInterval(() => turns++, 5);
    await vm.pageIn();
    clearInterval(timer);
    expect(turns).toBeGreaterThan(2);
    // Several at a time, and not without bound.
    expect(most).toBeGreaterThan(1);
    expect(most).toBeLessThanOrEqual(9);
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });
});

describe('a JavaScript source', () => {
  it('is asked once for each page, answers in any order, and may answer at once', async () => {
    const snapshot = await savedPattern();
    const whole = await sourceOf(snapshot);
    const waiting: (() => void)[] = [];
    const release = () => {
      for (const go of waiting.splice(0).reverse()) go();
    };
    const vm = await onDemand(snapshot, {
      source: {
        read: (gpa, length, signal) => {
          const bytes = whole.read(gpa, length, signal) as Promise<Uint8Array>;
          return new Promise((resolve) => waiting.push(() => resolve(bytes)));
        },
      },
    });
    const timer = setInterval(release, 3);
    await vm.pageIn();
    clearInterval(timer);
    const seen = new Set<bigint>();
    for (const { gpa, length } of whole.asked) {
      for (let at = gpa; at < gpa + BigInt(length); at += 4096n) {
        expect(seen.has(at)).toBe(false);
        seen.add(at);
      }
    }
    expect(seen.size).toBe(vm.paging!.fetchedPages);
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);

    const copy = await snapshot.restore();
    const bytes = copy.memory.read(0n, MiB(16));
    await copy.close();
    const sync = await onDemand(snapshot, {
      source: { read: (gpa, length) => bytes.subarray(Number(gpa), Number(gpa) + length) },
    });
    await verified(sync);
    expect(word(sync, GUEST_ABI.ERRORS)).toBe(0n);
  });

  it('may take its time: the machine can be paused and goes on', async () => {
    const snapshot = await savedPattern();
    let go: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    let asked = 0;
    const source = await sourceOf(snapshot, async (gpa) => {
      if (gpa < GUEST_ABI.PAGES) return;
      asked++;
      await gate;
    });
    const vm = await onDemand(snapshot, { source });
    // Its poll finds the machine paused.
    const verifying = expect(verified(vm)).rejects.toThrow('paused');
    await until('the guest waits for a page', () => asked > 0);
    const paused = vm.pause();
    setTimeout(go, 30);
    await paused;
    await verifying;
    const before = count(vm);
    await vm.resume();
    await until('it verifies on', () => count(vm) > before);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });
});

it('state that KVM writes into memory as it is set waits for its page, not for ever', async () => {
  // KVM_SET_MSRS of the wall clock's address writes the time there.
  const address = 0x300000n;
  const vm = await createVm({ memory: MiB(4), irqchip: false });
  vm.memory.write(address, Buffer.alloc(4096, 0x55));
  await vm.vcpus[0]!.setMsrs([{ index: MSR.KVM_WALL_CLOCK_NEW!, data: address }]);
  using snapshot = await vm.snapshot({ store: await newStore() });
  const source = await sourceOf(snapshot, () => sleep(5));
  const copy = await onDemand(snapshot, { source });
  expect(source.asked).toEqual([{ gpa: address, length: 65_536 }]);
  expect(copy.status).toBe('paused');
  expect(copy.memory.read(address + 100n, 1)[0]).toBe(0x55);

  const failing = { read: () => Promise.reject(new Error('no page')) };
  await expect(snapshot.restore({ paging: { source: failing } })).rejects.toMatchObject({
    code: 'ERR_PAGE_SOURCE',
  });
});

describe('paging options', () => {
  it('are checked', async () => {
    const snapshot = await savedPattern();
    const read = () => new Uint8Array();
    for (const paging of [
      { source: 'network' },
      { source: {} },
      { source: { read }, faultBytes: 5000 },
      { faultBytes: 2048 },
      { faultBytes: 2 ** 22 },
      { record: true, prefetch: [] },
      { record: true, faultBytes: 65_536 },
      { prefetch: true },
      { prefetch: [{ gpa: 1n, count: 1 }] },
      { prefetch: [{ gpa: BigInt(MiB(16)), count: 1 }] },
      { prefetch: [{ gpa: 0, count: 1 }] },
      { timeout: 0 },
      { onError: 'tell me' },
    ]) {
      await expect(snapshot.restore({ paging: paging as never })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
    }
  });

  it('have no meaning for a machine that has its memory', async () => {
    const vm = await createVm({ memory: MiB(4), irqchip: false });
    expect(vm.paging).toBeUndefined();
    await vm.pageIn();
    await vm.pageIn({ gpa: 0n, length: 1 });
    expect(() => vm.workingSet()).toThrow(expect.objectContaining({ code: 'ERR_STATE' }));
    for (const range of [
      { gpa: 0n },
      { length: 5 },
      { gpa: -1n, length: 1 },
      { gpa: 0n, length: 0 },
    ]) {
      await expect(vm.pageIn(range)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    }
  });
});

it('a guest that counts on its console goes on from where it was', async () => {
  const vm = await bootGuest('counter');
  await untilCounted(vm, 3n);
  using snapshot = await vm.snapshot({ store: await newStore(), then: 'stop' });
  const copy = await onDemand(snapshot);
  const before = count(copy);
  expect(before).toBeGreaterThanOrEqual(3n);
  await copy.start();
  await untilCounted(copy, 3n);
});
