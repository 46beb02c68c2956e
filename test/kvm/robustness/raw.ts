/** Machines of the addon itself, without the library's checks. */
import { onTestFinished } from 'vitest';
import { guestCpuids } from '../../../lib/cpu/cpuid.js';
import { kvmHost } from '../../../lib/host/host.js';
import type {
  NativeEvents,
  NativeExit,
  NativeImage,
  NativeMachine,
  NativeMachineConfig,
  NativeStop,
} from '../../../lib/native/binding.js';
import { nativeBinding } from '../../../lib/native/load.js';
import { MiB } from '../../../lib/units.js';

export const MEMORY = MiB(1);
const CODE_AT = 0x1000n;
/** Real mode: an endless loop. */
export const SPIN = [0xeb, 0xfe];
/** Real mode: reads port 0x80 for ever. */
export const ASK = [0xe4, 0x80, 0xeb, 0xfc];
/** Real mode: writes to port 0xE9 for ever. */
export const TALK = [0xe6, 0xe9, 0xeb, 0xfc];

export class Heard implements NativeEvents {
  readonly stops: NativeStop[] = [];
  readonly asked: { vcpu: number; question: number; claim: number; exit: NativeExit }[] = [];
  onAsk: () => void = () => {};

  stopped(stop: NativeStop): void {
    this.stops.push(stop);
  }
  output(): void {}
  exit(vcpu: number, question: number, claim: number, exit: NativeExit): void {
    this.asked.push({ vcpu, question, claim, exit });
    this.onAsk();
  }
}

export function configOf(changes: Partial<NativeMachineConfig> = {}): NativeMachineConfig {
  return {
    regions: [{ slot: 0, gpa: 0n, size: MEMORY, flags: 1 }],
    irqchip: false,
    manualDirtyLog: true,
    devices: {
      serial: true,
      i8042: true,
      debugPort: true,
      exitPort: 0xf4,
      cmos: true,
      acpiPower: true,
    },
    cpuid: guestCpuids({
      supported: kvmHost().supportedCpuid,
      vcpus: 1,
      irqchip: false,
      tscDeadlineTimer: false,
    }),
    ...changes,
  };
}

/** A machine that will execute `code`; closed at the end of the test. */
export async function rawMachine(
  code: readonly number[] = SPIN,
  heard = new Heard(),
  { image, ...config }: Partial<NativeMachineConfig> & { image?: NativeImage } = {},
): Promise<NativeMachine> {
  const machine = await nativeBinding().createMachine(configOf(config), heard, image);
  onTestFinished(() => machine.close());
  await aim(machine, code);
  return machine;
}

async function aim(machine: NativeMachine, code: readonly number[]): Promise<void> {
  machine.writeMemory(CODE_AT, Uint8Array.from(code));
  // kvm_sregs2 begins with cs: u64 base, u32 limit, u16 selector.
  const sregs = Buffer.from(await machine.getVcpu(0, 'sregs2'));
  sregs.writeBigUInt64LE(0n, 0);
  sregs.writeUInt16LE(0, 12);
  await machine.setVcpu(0, 'sregs2', sregs);
  // rip is the 17th register of kvm_regs.
  const regs = Buffer.from(await machine.getVcpu(0, 'regs'));
  regs.writeBigUInt64LE(CODE_AT, 16 * 8);
  await machine.setVcpu(0, 'regs', regs);
}

/** An image of zeros. */
export const rawImage = (size = MEMORY): NativeImage =>
  nativeBinding().imageFromFiles([], [{ gpa: 0n, size }], new Float64Array());
