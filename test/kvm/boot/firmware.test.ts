/** What a guest finds of processors and interrupt controllers: as firmware leaves them, or as a reset does. */
import { describe, expect, it } from 'vitest';
import { brandOf } from '../../../lib/cpu/cpuid.js';
import { decodePic } from '../../../lib/cpu/irqchip.js';
import { kvmHost } from '../../../lib/host/host.js';
import type { Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { bzImage } from '../../unit/boot/support.js';
import { createCode } from '../support/code.js';
import { createVm } from '../support/machines.js';

const MTRR_DEF_TYPE = 0x2ff;
/** The first MiB in 64, 16 and 4 KiB ranges, and the first range of any size. */
const MTRRS = [0x250, 0x258, 0x259, 0x268, 0x26f, 0x200, 0x201, MTRR_DEF_TYPE];

async function mtrrs(vm: Vm): Promise<bigint[][]> {
  return Promise.all(
    vm.vcpus.map(async (vcpu) => (await vcpu.getMsrs(MTRRS)).map(({ data }) => data)),
  );
}

async function pics(vm: Vm): Promise<{ irq_base: number; imr: number; elcr_mask: number }[]> {
  const { pic_master, pic_slave } = (await vm.saveState()).vm;
  return [pic_master!, pic_slave!].map((raw) => decodePic(raw).pic);
}

describe('A kernel', () => {
  const boot = (): Promise<Vm> => createVm({ kernel: bzImage(), memory: MiB(32), vcpus: 3 });

  it('finds memory types on every vCPU', async () => {
    const vm = await boot();
    const [first, ...others] = await mtrrs(vm);
    const wb = 0x0606060606060606n;
    expect(first!.slice(0, 6)).toEqual([wb, wb, 0n, wb, wb, 0xc0000000n]);
    expect(first![6]! & 0xffffffffn).toBe(0xc0000800n);
    expect(first![7]).toBe(0xc06n);
    for (const other of others) expect(other).toEqual(first);
  });

  it('finds virtual wire mode on the boot vCPU, and others as INIT leaves them', async () => {
    const vm = await boot();
    const [first, ...others] = await Promise.all(vm.vcpus.map((vcpu) => vcpu.getLapic()));
    expect(first).toMatchObject({ svr: 0x1ff, lvt_lint0: 0x700, lvt_lint1: 0x400 });
    for (const other of others) {
      expect(other).toMatchObject({ svr: 0xff, lvt_lint0: 0x10000, lvt_lint1: 0x10000 });
    }
  });

  it('finds PICs that are initialised and masked', async () => {
    expect(await pics(await boot())).toMatchObject([
      { irq_base: 0x08, imr: 0xff, elcr_mask: 0xf8 },
      { irq_base: 0x70, imr: 0xff, elcr_mask: 0xde },
    ]);
  });
});

it('A bare guest finds all of that as after a reset', async () => {
  const vm = await createCode([0xf4], { irqchip: true, vcpus: 2 });
  for (const msrs of await mtrrs(vm)) expect(msrs.every((data) => data === 0n)).toBe(true);
  expect(await vm.vcpus[0]!.getLapic()).toMatchObject({ svr: 0xff, lvt_lint1: 0x10000 });
  // What KVM itself masks for the level-triggered lines is what firmware must leave.
  expect(await pics(vm)).toMatchObject([
    { irq_base: 0, imr: 0, elcr_mask: 0xf8 },
    { irq_base: 0, imr: 0, elcr_mask: 0xde },
  ]);
});

it("Every guest finds the host's brand string", async () => {
  const host = Buffer.from(kvmHost().brand).toString('latin1').split('\0', 1)[0]!.trim();
  for (const vm of [await createCode([0xf4]), await createCode([0xf4], { irqchip: true })]) {
    expect(brandOf(await vm.vcpus[0]!.getCpuid())).toBe(host);
  }
});
