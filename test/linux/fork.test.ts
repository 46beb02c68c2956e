import { describe, expect, test } from 'vitest';
import { countedBy, countingGuest, countOn, endCount, heldBefore } from './support/continues.js';
import { powerOff } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { Terminal } from './support/terminal.js';

describe.skipIf(whyNoLinux())('A running guest that counts and writes files', () => {
  test.each([1, 2])(
    '%i vCPU: forks, and each of them goes on with the next number',
    async (vcpus) => {
      await using source = await countingGuest(vcpus, 5);
      const { terminal, vm, log } = source;
      const before = countedBy(terminal);
      const forks = await vm.fork(2);
      const held: string[] = [];
      for (const fork of forks) {
        const its = new Terminal(fork.console, fork.console);
        await fork.start();
        await countOn(its, 3);
        const last = await endCount(its, log);
        held.push(heldBefore(its.text, last));
        await fork.close();
      }
      // Both from the same byte, one that the source wrote while the call was under way.
      expect(held[1]).toBe(held[0]);
      expect(held[0]!.startsWith(before)).toBe(true);
      await countOn(terminal, 2);
      await endCount(terminal, log);
      expect(await powerOff(source)).toEqual({ reason: 'power-off' });
    },
  );

  test.each([1, 2])('%i vCPU: is reset, three times, and goes on from there', async (vcpus) => {
    await using source = await countingGuest(vcpus, 5);
    const { terminal, vm, log } = source;
    using snapshot = await vm.snapshot({ then: 'pause' });
    await new Promise((resolve) => setImmediate(resolve));
    const held = countedBy(terminal);
    for (let round = 0; round < 3; round++) {
      await vm.resume();
      await countOn(terminal, 3);
      if (round === 1) await vm.kill();
      await vm.reset(snapshot);
      await new Promise((resolve) => setImmediate(resolve));
      const shown = terminal.text.length;
      await vm.resume();
      await countOn(terminal, 3);
      await vm.pause();
      await new Promise((resolve) => setImmediate(resolve));
      // The very next byte, each time.
      const counted = held + terminal.text.slice(shown);
      const numbers = counted.split('\n').slice(0, -1);
      expect(numbers).toEqual(numbers.map((_, i) => `count ${i + 1}`));
    }
    await vm.resume();
    await countOn(terminal, 2);
    await endCount(terminal, log);
    expect(await powerOff(source)).toEqual({ reason: 'power-off' });
  });
});
