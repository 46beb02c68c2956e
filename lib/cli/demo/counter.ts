/** The guest `counter` as the demo sees it. */
import { GUEST_ABI } from '../../native/guest-abi.js';
import { guestPath } from '../../native/guests.js';
import { MiB } from '../../units.js';
import { Vm } from '../../vm/vm.js';

/** In 64-bit ring 3, where every kind of KVM runs at native speed. */
export const createCounter = (): Promise<Vm> =>
  Vm.create({
    bare: { image: guestPath('counter'), mode: 'long', ring: 3 },
    memory: MiB(64),
    irqchip: false,
  });

/** The last number whose line was sent whole, by the guest's own account (native/guest/counter.S). */
export function readCount(vm: Vm): number {
  const at = GUEST_ABI.DATA + BigInt(GUEST_ABI.COUNT);
  return Number(vm.memory.read(at, 8).readBigUInt64LE());
}
