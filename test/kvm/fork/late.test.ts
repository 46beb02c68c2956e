/** Forks of a machine that goes on writing while its pages are still being copied. */
import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { rounds } from '../support/host.js';
import { setWord, untilCounted, word } from '../support/machines.js';
import { bootWriter, inOrder, salts, writerFaults } from '../support/writer.js';

const PAGES = 2000;

const allOf = (vm: Vm): Buffer => Buffer.from(vm.memory.read(0n, MiB(16)));

describe('a machine that is frozen again, and runs on before its pages are copied', () => {
  it('leaves in the image what it had at that instant, whatever it and its owner write', async () => {
    const vm = await bootWriter(PAGES);
    const expectNext = inOrder(PAGES);
    // All salts in the order in which the owner stores them. A machine has none in its pages that came after the one
    // that is stored in it.
    const stored = [word(vm, GUEST_ABI.SALT, 'writer')];
    const store = (salt: number): void => {
      stored.push(BigInt(salt));
      setWord(vm, GUEST_ABI.SALT, BigInt(salt), 'writer');
    };
    const expectOlder = (machine: Vm): void => {
      const now = stored.indexOf(word(machine, GUEST_ABI.SALT, 'writer'));
      const written = [...salts(machine, PAGES)].map((salt) => stored.indexOf(salt));
      expect(written.filter((at) => at < 0 || at > now)).toEqual([]);
    };
    for (let round = 1; round <= rounds(40); round++) {
      store(round);
      const frozen = vm.snapshot();
      // The owner writes too, into pages that are on their way.
      for (let i = 0; i < 20; i++) store(round * 100 + i);
      using snapshot = await frozen;
      const [copy] = await snapshot.fork(1);
      expectNext(copy!);
      expectOlder(copy!);
      await copy!.close();
    }
    await untilCounted(vm, 1n, 'writer');
    await vm.pause();
    expect(writerFaults(vm, PAGES)).toEqual([]);
    expectOlder(vm);
  });

  it('is frozen, reset, tracked, paused, killed and closed in the middle of it', async () => {
    for (let round = 0; round < Math.max(6, rounds(24)); round++) {
      const vm = await bootWriter(PAGES);
      using first = await vm.snapshot();
      await untilCounted(vm, 1n, 'writer');
      const frozen = vm.snapshot();
      const next = [
        () => vm.snapshot().then((again) => again.close()),
        () => vm.reset(first),
        () => vm.pause(),
        () => vm.kill(),
        () => vm.close(),
        async () => {
          for await (const _ of vm.dirty({ tracker: 'cow', every: 1 })) break;
        },
      ][round % 6]!;
      const [taken] = await Promise.allSettled([frozen, next()]);
      // A machine that was killed or closed first is not frozen any more.
      if (taken.status === 'rejected') {
        expect([3, 4]).toContain(round % 6);
        expect(taken.reason).toMatchObject({ code: expect.stringMatching(/CLOSED|POISONED/) });
        continue;
      }
      using snapshot = taken.value;
      const [copy] = await snapshot.fork(1);
      expect(writerFaults(copy!, PAGES)).toEqual([]);
      if (vm.status === 'paused') expect(writerFaults(vm, PAGES)).toEqual([]);
      await copy!.close();
      await vm.close();
    }
  });

  it('makes increments of it that restore to the same', async () => {
    const vm = await bootWriter(PAGES);
    let parent = await vm.snapshot();
    let before: Buffer | undefined;
    for (let round = 0; round < rounds(10); round++) {
      await untilCounted(vm, 1n, 'writer');
      const next = await vm.snapshot();
      await using copy = (await next.fork(1))[0]!;
      await using older = (await parent.fork(1))[0]!;
      if (before) expect(allOf(older).equals(before)).toBe(true);
      before = allOf(copy);
      for (const machine of [copy, older]) {
        expect(writerFaults(machine, PAGES)).toEqual([]);
        await machine.resume();
      }
      parent.close();
      parent = next;
    }
    expect(before).toBeDefined();
    parent.close();
  });
});
