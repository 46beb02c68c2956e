/** How a guest that firmware booted asks for a reset: kernels of a few instructions, entered as Linux is. */
import { describe, expect, it } from 'vitest';
import type { DeviceOptions, Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { bzImage } from '../../unit/boot/support.js';
import { outByte, u16, u32 } from '../support/code.js';
import { EMULATED_RING0 } from '../support/host.js';
import { createVm } from '../support/machines.js';

/** Where the payload's 64-bit entry lies in the file of {@link bzImage}. */
const ENTRY_IN_FILE = 1024 + 0x200;
/** `mov word [0x472], value`: how the guest wants to be reset. */
const setResetFlag = (value: number): number[] => [
  ...[0x66, 0xc7, 0x04, 0x25, ...u32(0x472)],
  ...u16(value),
];
/** Without an IDT a triple fault. */
const UD2 = [0x0f, 0x0b];

async function boot(code: readonly number[], devices: DeviceOptions = {}): Promise<Vm> {
  const kernel = bzImage();
  kernel.set([...code, 0xf4], ENTRY_IN_FILE);
  return createVm({ kernel, memory: MiB(32), devices });
}

async function stopOf(vm: Vm): Promise<unknown> {
  await vm.start();
  return vm.wait();
}

describe('A triple fault', () => {
  it.each([
    ['a cold boot', 0],
    ['a warm boot', 0x1234],
  ])('after the guest has asked for %s is a reset', async (_, flag) => {
    expect(await stopOf(await boot([...setResetFlag(flag), ...UD2]))).toEqual({ reason: 'reset' });
  });

  it('that nobody asked for is none', async () => {
    expect(await stopOf(await boot(UD2))).toEqual({ reason: 'shutdown' });
    const other = [...setResetFlag(0x5678), ...UD2];
    expect(await stopOf(await boot(other))).toEqual({ reason: 'shutdown' });
  });

  it('is told apart in a fork, too', async () => {
    const vm = await boot([...setResetFlag(0), ...UD2]);
    const [fork] = await vm.fork(1);
    try {
      expect(await stopOf(fork!)).toEqual({ reason: 'reset' });
    } finally {
      await fork!.close();
    }
  });
});

describe("The chipset's reset register", () => {
  it('resets, as reboot=p asks for it', async () => {
    // As Linux does: first the kind, then the reset.
    const code = [...outByte(0xcf9, 0x02), ...outByte(0xcf9, 0x0e)];
    expect(await stopOf(await boot(code))).toEqual({ reason: 'reset' });
  });

  it('does so without an i8042', async () => {
    const vm = await boot(outByte(0xcf9, 0x06), { i8042: false });
    expect(await stopOf(vm)).toEqual({ reason: 'reset' });
  });
});

describe('The reset vector', () => {
  it.each<[string, DeviceOptions]>([
    ['all devices', {}],
    ['the i8042 alone', { acpiPower: false }],
    ['the reset register alone', { i8042: false }],
  ])('resets a machine with %s', async (_, devices) => {
    expect(await stopOf(await atResetVector(devices))).toEqual({ reason: 'reset' });
  });

  // KVM's instruction emulator raises no exception in real mode.
  it.skipIf(EMULATED_RING0)('resets a machine with neither, by a triple fault', async () => {
    const vm = await atResetVector({ i8042: false, acpiPower: false });
    expect(await stopOf(vm)).toEqual({ reason: 'reset' });
  });

  async function atResetVector(devices: DeviceOptions): Promise<Vm> {
    const vm = await boot([], devices);
    const vcpu = vm.vcpus[0]!;
    const sregs = await vcpu.getSregs();
    const real = { base: 0xf0000n, selector: 0xf000, limit: 0xffff, db: 0, l: 0, g: 0, dpl: 0 };
    // As a jump to F000:FFF0 from real mode finds it; the data segments are whatever they were.
    const data = { ...sregs.ds, base: 0x12340n, selector: 0x1234, limit: 0xffff, db: 0, g: 0 };
    const rest = { ds: data, es: data, fs: data, gs: data, ss: data };
    await vcpu.setSregs({ cr0: 0x10n, cr4: 0n, efer: 0n, cs: { ...sregs.cs, ...real }, ...rest });
    await vcpu.setRegs({ rip: 0xfff0n, rsp: 0n, rflags: 2n });
    return vm;
  }
});
