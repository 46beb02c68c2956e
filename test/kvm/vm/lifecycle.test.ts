import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { createCode, outByte, SPIN } from '../support/code.js';
import {
  bootGuest,
  count,
  createGuest,
  createVm,
  stopOf,
  untilCounted,
} from '../support/machines.js';

describe('status', () => {
  it('goes from created by running and paused to closed', async () => {
    const vm = await createGuest('counter', { regs: { rsi: 64n } });
    expect(vm.status).toBe('created');
    await vm.start();
    expect(vm.status).toBe('running');
    await untilCounted(vm);
    await vm.pause();
    expect(vm.status).toBe('paused');
    await vm.resume();
    expect(vm.status).toBe('running');
    await vm.close();
    expect(vm.status).toBe('closed');
  });

  it('stays created when a machine that never ran is paused', async () => {
    const vm = await createGuest('counter');
    await vm.pause();
    expect(vm.status).toBe('created');
  });

  it('lets a machine without a guest be made, looked at and closed', async () => {
    const vm = await createVm({ memory: 4096, irqchip: false });
    expect(vm.describe()).toMatchObject({
      vcpus: 1,
      irqchip: false,
      memory: { regions: [{ slot: 0, gpa: 0, size: 4096 }] },
    });
    expect(vm.memory.read(0n, 4096).every((byte) => byte === 0)).toBe(true);
  });
});

describe('pause', () => {
  it('stops the guest, and is idempotent', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    await untilCounted(vm);
    await Promise.all([vm.pause(), vm.pause()]);
    const before = count(vm);
    await vm.pause();
    await sleep(20);
    expect(count(vm)).toBe(before);
    await vm.resume();
    await untilCounted(vm);
  });

  it('finds a guest that is halted and waits for interrupts', async () => {
    const vm = await createCode([0xfb, 0xf4, ...SPIN], { irqchip: true });
    await vm.start();
    for (let i = 0; i < 20; i++) {
      await vm.pause();
      expect(vm.status).toBe('paused');
      await vm.resume();
    }
  });

  it('of a stopped machine leaves it stopped', async () => {
    const vm = await createCode(outByte(0xf4, 0));
    await vm.start();
    await stopOf(vm);
    await vm.pause();
    expect(vm.status).toBe('stopped');
  });
});

describe('resume', () => {
  it('of a running machine changes nothing', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    await vm.resume();
    expect(vm.status).toBe('running');
    await untilCounted(vm);
  });

  it('of a stopped machine is refused, and says which states are right', async () => {
    const vm = await createCode(outByte(0xf4, 7));
    await vm.start();
    await stopOf(vm);
    await expect(vm.resume()).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: 'resume is not allowed while the machine is stopped: it must be created or paused',
    });
  });
});

describe('a running machine', () => {
  it('refuses what needs it to stand still, in a message that says so', async () => {
    const vm = await bootGuest('counter');
    const vcpu = vm.vcpus[0]!;
    const refused: Record<string, () => Promise<unknown>> = {
      getRegs: () => vcpu.getRegs(),
      setRegs: () => vcpu.setRegs({ rax: 1n }),
      getMsrs: () => vcpu.getMsrs([0x10]),
      run: () => vcpu.run(),
      step: () => vcpu.step(),
      saveState: () => vm.saveState(),
      addSlot: () => vm.memory.addSlot({ slot: 5, gpa: 0x10000000n, size: 4096 }),
      removeSlot: () => vm.memory.removeSlot(0),
      setSlotFlags: () => vm.memory.setSlotFlags(0, { logDirtyPages: true }),
    };
    for (const [name, call] of Object.entries(refused)) {
      await expect(call(), name).rejects.toMatchObject({
        code: 'ERR_STATE',
        message: expect.stringMatching(
          /not allowed while the machine is running: it must be .*paused/,
        ),
      });
    }
    await untilCounted(vm);
  });
});

describe('close', () => {
  it('is idempotent, and every later call says ERR_CLOSED', async () => {
    const vm = await bootGuest('counter');
    const closing = vm.close();
    expect(vm.close()).toBe(closing);
    await closing;
    await vm.close();
    const vcpu = vm.vcpus[0]!;
    const calls: Record<string, () => unknown> = {
      start: () => vm.start(),
      pause: () => vm.pause(),
      getRegs: () => vcpu.getRegs(),
      run: () => vcpu.run(),
      answer: async () => vcpu.answer(new Uint8Array(1)),
      read: async () => vm.memory.read(0n, 1),
      write: async () => vm.memory.write(0n, new Uint8Array(1)),
      slots: async () => vm.memory.slots(),
      saveState: () => vm.saveState(),
      dirty: () => vm.memory.getDirtyLog(0),
      claim: async () => vm.claimPorts({ base: 0x500 }),
      irq: async () => vm.setIrqLine(4, true),
      snapshot: () => vm.snapshot({ store: '/nonexistent/store' }),
    };
    for (const [name, call] of Object.entries(calls)) {
      await expect(call(), name).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    }
    // What it asks for has happened, and more.
    await vm.kill();
    expect(vm.status).toBe('closed');
  });

  it('ends a machine while it runs, with the streams of its console', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    const ended = new Promise((resolve) => vm.console.once('end', resolve));
    vm.console.resume();
    await vm.close();
    await ended;
  });

  it('answers calls that were waiting', async () => {
    const vm = await createGuest('hostile');
    const running = vm.vcpus[0]!.run({ dispatch: true });
    const refused = expect(running).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await vm.close();
    await refused;
  });

  it('comes with `await using`', async () => {
    let kept: Vm;
    {
      await using vm = await Vm.create({ memory: MiB(1), irqchip: false });
      kept = vm;
    }
    expect(kept.status).toBe('closed');
  });
});

describe('creation', () => {
  it.each([
    ['no vCPU', { vcpus: 0 }, /vcpus must be/],
    ['half a page', { memory: 2048 }, /multiple of 4096/],
    ['no memory', { memory: 0 }, /multiple of 4096/],
    ['a port beyond the last', { devices: { exitPort: 0x10000 } }, /exitPort/],
    ['initrd without a kernel', { initrd: new Uint8Array(1) }, /kernel/],
  ])('refuses %s', async (_what, options, message) => {
    await expect(Vm.create(options)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });

  it('says ERR_ABORTED when its signal has fired', async () => {
    await expect(Vm.create({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
  });
});
