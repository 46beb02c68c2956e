/** Resets of guests that stay in ring 3, which put back less, and of guests that do not. */
import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { rounds } from '../support/host.js';
import { createGuest } from '../support/machines.js';
import { differences } from '../support/state.js';

const STAY = 0;
const ENTER_RING_0 = 1;
const REMAP = 2;

const VIEW = GUEST_ABI.ESCAPE_VIEW;

/** The word that the guest saw, when it has done what it was told. */
async function runEscape(vm: Vm, command: number): Promise<bigint> {
  const vcpu = vm.vcpus[0]!;
  expect(await vcpu.run()).toMatchObject({ kind: 'io', port: GUEST_ABI.PORT_COMMAND });
  vcpu.answer(Buffer.of(command));
  expect(await vcpu.run()).toMatchObject({ kind: 'io', port: GUEST_ABI.PORT_PASS });
  return (await vcpu.getRegs()).rbx;
}

describe.each([
  ['without an irqchip', false],
  ['with an irqchip', true],
])('reset of a guest in ring 3, %s', (_, irqchip) => {
  const boot = async () => {
    const vm = await createGuest('escape', { irqchip });
    const word = Buffer.alloc(8);
    for (const [at, value] of [[VIEW, 1n] as const, [VIEW + BigInt(MiB(2)), 2n] as const]) {
      word.writeBigUInt64LE(value);
      vm.memory.write(at, word);
    }
    return vm;
  };

  it('puts back all, whether it stayed there, went to ring 0 or changed its page tables', async () => {
    const vm = await boot();
    using snapshot = await vm.snapshot();
    const state = await vm.saveState();
    const memory = Buffer.from(vm.memory.read(0n, MiB(16)));
    const commands = [STAY, STAY, ENTER_RING_0, STAY, REMAP, STAY, REMAP, ENTER_RING_0];
    for (let round = 0; round < rounds(64); round++) {
      const command = commands[round % commands.length]!;
      expect(await runEscape(vm, command)).toBe(command === REMAP ? 2n : 1n);
      if (command === ENTER_RING_0) {
        const { db } = await vm.vcpus[0]!.getDebugRegs();
        expect(db[0]).toBe(0x12345000n);
      }
      await vm.reset(snapshot);
      expect(differences(state, await vm.saveState())).toEqual([]);
      expect(Buffer.from(vm.memory.read(0n, MiB(16))).equals(memory)).toBe(true);
    }
  });

  it('puts back what its owner changed, or a CPU that shut down', async () => {
    const vm = await boot();
    using snapshot = await vm.snapshot();
    const state = await vm.saveState();
    const vcpu = vm.vcpus[0]!;
    for (let round = 0; round < rounds(10); round++) {
      await runEscape(vm, STAY);
      await vcpu.setMsrs([{ index: 0xc0000102, data: 0x77000n }]);
      await vm.reset(snapshot);
      expect(differences(state, await vm.saveState())).toEqual([]);
      // An instruction that ring 3 may not execute, and no handler: the CPU shuts down.
      vm.memory.write((await vcpu.getRegs()).rip, Buffer.of(0xf4));
      expect(await vcpu.run()).toMatchObject({ kind: 'shutdown' });
      await vm.reset(snapshot);
      expect(differences(state, await vm.saveState())).toEqual([]);
    }
  });

  it('keeps CR8 and FPU registers, which no exit tells of', async () => {
    const vm = await boot();
    const vcpu = vm.vcpus[0]!;
    await vcpu.setSregs({ cr8: 5n });
    using snapshot = await vm.snapshot();
    for (let round = 0; round < rounds(10); round++) {
      await runEscape(vm, STAY);
      expect((await vcpu.getSregs()).cr8).toBe(5n);
      await vm.reset(snapshot);
    }
  });
});
