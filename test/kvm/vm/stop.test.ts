import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { createCode, movEax, movEdx, OUT_DX_EAX, outByte } from '../support/code.js';
import { bootGuest, createGuest, stopOf, untilCounted } from '../support/machines.js';

/** How a guest ends its machine, as code in ring 0 of long mode. */
const ENDINGS = {
  'the exit port': { code: outByte(0xf4, 42), stop: { reason: 'exit-port', code: 42 } },
  'the exit port, with 0': { code: outByte(0xf4, 0), stop: { reason: 'exit-port', code: 0 } },
  'the exit port, with 255': { code: outByte(0xf4, 255), stop: { reason: 'exit-port', code: 255 } },
  'a reset by the i8042': { code: outByte(0x64, 0xfe), stop: { reason: 'reset' } },
  // ACPI 6.4, 4.8.3.7: SLP_EN (bit 5) and SLP_TYP 5 in the sleep control register.
  'ACPI S5': { code: outByte(0x600, (5 << 2) | (1 << 5)), stop: { reason: 'power-off' } },
  // lidt [rip + 2]; ud2; an empty IDT.
  'a triple fault': {
    code: [0x0f, 0x01, 0x1d, 2, 0, 0, 0, 0x0f, 0x0b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    stop: { reason: 'shutdown' },
  },
  'hlt with interrupts off and no irqchip': { code: [0xfa, 0xf4], stop: { reason: 'halt' } },
} as const;

const startAndStop = async (vm: Vm) => {
  await vm.start();
  return stopOf(vm);
};

describe('a guest ends its machine by', () => {
  it.each(Object.entries(ENDINGS))('%s', async (_how, { code, stop }) => {
    const vm = await createCode(code);
    expect(await startAndStop(vm)).toEqual(stop);
    expect(vm.status).toBe('stopped');
    // Again, for those who ask later.
    expect(await vm.wait()).toEqual(stop);
    // It can still be looked at.
    await expect(vm.vcpus[0]!.getRegs()).resolves.toHaveProperty('rip');
  });

  it('the exit port, from ring 3', async () => {
    const vm = await createCode(outByte(0xf4, 9), { ring: 3 });
    expect(await startAndStop(vm)).toEqual({ reason: 'exit-port', code: 9 });
  });

  it('a dword at the exit port, which is an unsigned number', async () => {
    const vm = await createCode([...movEdx(0xf4), ...movEax(0x92345607), OUT_DX_EAX]);
    expect(await startAndStop(vm)).toEqual({ reason: 'exit-port', code: 0x92345607 });
  });

  it('an end of one vCPU ends all', async () => {
    const vm = await createCode(outByte(0xf4, 3), { vcpus: 3, irqchip: true });
    expect(await startAndStop(vm)).toEqual({ reason: 'exit-port', code: 3 });
    expect(vm.status).toBe('stopped');
  });
});

describe('what a guest wrote before it stopped', () => {
  it('is there before wait() resolves', async () => {
    const text = 'last words';
    const vm = await createCode([
      ...[...text].flatMap((letter) => outByte(0x3f8, letter.charCodeAt(0))),
      ...outByte(0xe9, 0x21),
      ...outByte(0xf4, 1),
    ]);
    let written = '';
    let debugged = '';
    vm.console.on('data', (bytes) => {
      written += bytes;
    });
    vm.debug.on('data', (bytes) => {
      debugged += bytes;
    });
    await startAndStop(vm);
    await vm.close();
    expect([written, debugged]).toEqual([text, '!']);
  });
});

describe('kill', () => {
  it('poisons: every call that needs a sound machine says so, looking at it works', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    await untilCounted(vm);
    await vm.kill();
    expect(vm.status).toBe('poisoned');
    expect(await stopOf(vm)).toMatchObject({ reason: 'killed' });
    const vcpu = vm.vcpus[0]!;
    const calls: Record<string, () => Promise<unknown>> = {
      start: () => vm.start(),
      resume: () => vm.resume(),
      pause: () => vm.pause(),
      setRegs: () => vcpu.setRegs({ rax: 0n }),
      setMsrs: () => vcpu.setMsrs([]),
      run: () => vcpu.run(),
      step: () => vcpu.step(),
      addSlot: () => vm.memory.addSlot({ slot: 5, gpa: 0x10000000n, size: 4096 }),
      removeSlot: () => vm.memory.removeSlot(0),
      getDirtyLog: () => vm.memory.getDirtyLog(0),
      loadState: async () => vm.loadState(await vm.saveState()),
    };
    for (const [name, call] of Object.entries(calls)) {
      await expect(call(), name).rejects.toMatchObject({
        code: 'ERR_POISONED',
        message: expect.stringMatching(/reset or close/),
      });
    }
    expect((await vcpu.getRegs()).rip).toBeGreaterThan(0n);
    expect(vm.memory.read(0x100000n, 16)).toHaveLength(16);
    await vm.kill();
    await vm.close();
    expect(vm.status).toBe('closed');
  });

  it('refuses a snapshot of a poisoned machine', async () => {
    const vm = await createGuest('counter');
    await vm.kill();
    const { scratch } = await import('../support/scratch.js');
    await expect(vm.snapshot({ store: `${scratch()}/store` })).rejects.toMatchObject({
      code: 'ERR_POISONED',
    });
  });

  it('works on a machine that never ran', async () => {
    const vm = await createGuest('counter');
    await vm.kill();
    expect(vm.status).toBe('poisoned');
    await expect(vm.start()).rejects.toMatchObject({ code: 'ERR_POISONED' });
  });

  it('ends a call that waits for an exit', async () => {
    const vm = await createGuest('hostile');
    const running = expect(vm.vcpus[0]!.run({ dispatch: true })).rejects.toMatchObject({
      code: 'ERR_POISONED',
    });
    await vm.kill();
    await running;
  });
});
