// Small machines: code in ring 0 at 0x8000, one vCPU, 4 MiB, no irqchip unless asked for.
import { MiB, Vm } from '../../../../lib/index.js';
import { readGuest } from '../../../../lib/native/guests.js';

const outByte = (port, value) => [0xba, port & 0xff, port >> 8, 0, 0, 0xb0, value, 0xee];
export const SPIN = [0xeb, 0xfe];
/** Ends the machine with exit code 7. */
export const EXIT = [...outByte(0xf4, 7), ...SPIN];
/** Reads port 0x1000 for ever. */
export const READ_PORT = [0xba, 0, 0x10, 0, 0, 0xec, 0xeb, 0xfd];

export function bare(code, options = {}) {
  const { memory = MiB(4), irqchip = false, ...rest } = options;
  return Vm.create({
    memory,
    irqchip,
    ...rest,
    bare: {
      image: Uint8Array.from(code),
      format: 'flat',
      mode: 'long',
      ring: 0,
      loadAddress: 0x8000n,
    },
  });
}

/** Pages that `touching` writes in a pass. */
export const TOUCHED = 10;

/** The guest `touch` at native speed, before its first pass. Each `run()` is a pass. */
export async function touching(options = {}) {
  const vm = await Vm.create({
    memory: MiB(4),
    irqchip: false,
    ...options,
    bare: { image: readGuest('touch'), mode: 'long', ring: 3 },
  });
  await vm.vcpus[0].setRegs({ r15: BigInt(TOUCHED) });
  await vm.vcpus[0].run();
  return vm;
}
