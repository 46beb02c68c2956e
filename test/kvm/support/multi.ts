/** Guests with several vCPUs. */
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { type BootOptions, createGuest, until, untilReady, word } from './machines.js';

/** Guests in ring 3 leave it to the host: the other vCPUs start where the first does, with their number in rsi. */
export async function startOthersAsFirst(vm: Vm): Promise<void> {
  const [first, ...others] = vm.vcpus;
  const regs = await first!.getRegs();
  const { apic_base, ...sregs } = await first!.getSregs();
  for (const vcpu of others) {
    await vcpu.setSregs(sregs);
    await vcpu.setRegs({ ...regs, rsi: BigInt(vcpu.index) });
    await vcpu.setMpState({ mp_state: 0 });
  }
}

/** `smp-ring3` on each vCPU, not started. */
export async function createRing3Smp(vcpus: number, options: BootOptions = {}) {
  const vm = await createGuest('smp-ring3', { ...options, vcpus });
  await startOthersAsFirst(vm);
  return vm;
}

/** What vCPU `index` has counted. */
export const line = (vm: Vm, index: number): bigint => word(vm, GUEST_ABI.LINES + 64 * index);

/** Until every vCPU has counted on from now. */
export async function untilAllCount(vm: Vm): Promise<void> {
  const before = vm.vcpus.map(({ index }) => line(vm, index));
  await until('every vCPU counts', () => before.every((count, index) => line(vm, index) > count));
}

export async function bootRing3Smp(vcpus: number, options: BootOptions = {}): Promise<Vm> {
  const vm = await createRing3Smp(vcpus, options);
  await vm.start();
  await untilAllCount(vm);
  return vm;
}

/** `smp`: vCPU 0 starts the others by INIT and start-up IPIs. */
export async function bootSmp(vcpus: number, options: BootOptions = {}): Promise<Vm> {
  const vm = await createGuest('smp', { ...options, irqchip: true, vcpus });
  await vm.start();
  await untilReady(vm, 'smp');
  await untilAllCount(vm);
  return vm;
}
