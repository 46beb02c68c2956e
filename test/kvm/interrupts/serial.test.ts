import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { Sent } from '../support/lines.js';
import {
  bootGuest,
  count,
  createGuest,
  setWord,
  stopOf,
  until,
  word,
} from '../support/machines.js';
import { copiesOf } from '../support/restored.js';

const EOT = '\x04';

/** Everything that the guest has received, oldest first. */
const received = (vm: Vm): string => {
  const length = Math.min(Number(word(vm, GUEST_ABI.LENGTH)), 4096);
  return vm.memory.read(GUEST_ABI.DATA + BigInt(GUEST_ABI.LINES), length).toString('latin1');
};

async function bootWaiting(): Promise<Vm> {
  const vm = await createGuest('serial-irq', { irqchip: true, regs: { rsi: 1n } });
  await vm.start();
  await until('the guest waits', () => {
    return word(vm, GUEST_ABI.PHASE) === BigInt(GUEST_ABI.PHASE_WAITING);
  });
  return vm;
}

/** How many bytes lie in the FIFO. */
const inFifo = async (vm: Vm): Promise<number> => {
  const { devices } = await vm.saveState();
  return Number(devices.serial!.rx_count);
};

async function go(vm: Vm): Promise<void> {
  setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
  if (vm.status !== 'running') await vm.resume();
}

describe('serial input that the guest has not read', () => {
  it.each([1, 5, 16])(
    '%i bytes: are in the FIFO of each copy, in order, and interrupt once',
    async (length) => {
      for (let round = 0; round < 5; round++) {
        const vm = await bootWaiting();
        const text = Buffer.from(Array.from({ length }, (_, i) => 0x61 + ((i + round) % 26)));
        vm.console.write(text);
        const copies = await copiesOf(vm, 2);
        for (const machine of [...copies, vm]) {
          expect(await inFifo(machine)).toBe(length);
          // IRQ 4 is in the request register of the PIC.
          expect((await machine.saveState()).vm.pic_master![8 + 1]! & 0x10).toBe(0x10);
          const echo = new Sent(machine);
          await go(machine);
          await until('all bytes are echoed', () => echo.text.length === length);
          expect(echo.text).toBe(text.toString());
          expect(received(machine)).toBe(text.toString());
          // One edge, one interrupt, for all of them; none without a byte.
          expect(count(machine)).toBe(1n);
          expect(word(machine, GUEST_ABI.ERRORS)).toBe(0n);
          await machine.close();
        }
      }
    },
  );

  it('is followed by what is typed after the restore', async () => {
    const vm = await bootWaiting();
    vm.console.write('before ');
    const copies = await copiesOf(vm, 2);
    for (const [i, machine] of [...copies, vm].entries()) {
      machine.console.write(`after ${i}`);
      await go(machine);
      machine.console.write(EOT);
      expect(await stopOf(machine)).toEqual({ reason: 'exit-port', code: GUEST_ABI.EXIT_OK });
      expect(received(machine)).toBe(`before after ${i}${EOT}`);
      expect(word(machine, GUEST_ABI.ERRORS)).toBe(0n);
    }
  });

  it('beyond the FIFO stays with the host: the machine goes on with all of it', async () => {
    const vm = await bootWaiting();
    const text = 'The quick brown fox jumps over the lazy dog, many times, and never tires of it.';
    vm.console.write(text);
    const [copy] = await copiesOf(vm, 1);
    expect(await inFifo(copy!)).toBe(16);
    await go(vm);
    await until('the machine has all', () => received(vm) === text);
    // What the guest had not taken was never in the machine, and is not in its copy.
    await go(copy!);
    copy!.console.write(EOT);
    await stopOf(copy!);
    expect(received(copy!)).toBe(`${text.slice(0, 16)}${EOT}`);
  });
});

describe('a console', () => {
  it('takes 64 KiB faster than the guest reads, and loses none', async () => {
    const vm = await bootGuest('serial-irq', { irqchip: true });
    const echo = new Sent(vm);
    const text = Array.from({ length: 4000 }, (_, i) => String.fromCharCode(97 + (i % 26))).join(
      '',
    );
    vm.console.write(text);
    await until('all is echoed', () => echo.text.length >= text.length);
    expect(echo.text).toBe(text);
  });

  it('typed at while snapshots are taken: no byte is lost or doubled, 30 times', async () => {
    const vm = await bootGuest('serial-irq', { irqchip: true });
    const echo = new Sent(vm);
    let typed = '';
    for (let round = 0; round < 30; round++) {
      const line = `line ${round} of thirty\n`;
      typed += line;
      vm.console.write(line.slice(0, 7));
      const copying = copiesOf(vm, 1, 'resume');
      vm.console.write(line.slice(7));
      const [copy] = await copying;
      await until('the machine echoes it', () => echo.text.length === typed.length);
      expect(echo.text).toBe(typed);
      // The copy has a beginning of it: what had reached the guest or its FIFO.
      const more = new Sent(copy!);
      await copy!.resume();
      copy!.console.write('#');
      await until('the copy echoes', () => more.text.endsWith('#'));
      expect(`${typed}#`.startsWith(received(copy!).slice(0, -1))).toBe(true);
      expect(word(copy!, GUEST_ABI.ERRORS)).toBe(0n);
      await copy!.close();
    }
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });
});

describe('setIrqLine', () => {
  it('raises an interrupt by hand, which a copy has pending', async () => {
    // IRQ 4 without a byte: the guest counts it as an error of its own.
    const vm = await bootWaiting();
    vm.setIrqLine(4, true);
    vm.setIrqLine(4, false);
    const copies = await copiesOf(vm, 1);
    for (const machine of [...copies, vm]) {
      await go(machine);
      await until('the interrupt comes', () => count(machine) === 1n);
      // The guest counts it a few instructions before it looks at what it was.
      await until('the guest sees no byte', () => word(machine, GUEST_ABI.ERRORS) === 1n);
    }
  });

  it('needs an irqchip, and an input that is there', async () => {
    const plain = await createGuest('counter');
    expect(() => plain.setIrqLine(4, true)).toThrow(expect.objectContaining({ code: 'ERR_STATE' }));
    const vm = await createGuest('counter', { irqchip: true });
    for (const gsi of [24, 1 << 20]) {
      expect(() => vm.setIrqLine(gsi, true)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
      );
    }
  });
});
