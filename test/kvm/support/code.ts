/** Machine code for tests that know each instruction. */
import type { Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { createVm } from './machines.js';

export type Mode = 'real' | 'protected' | 'long';

export const CODE_AT = 0x8000n;

/** A machine that starts with `code` at {@link CODE_AT}; what follows it is `hlt`. */
export async function createCode(
  code: readonly number[],
  options: { mode?: Mode; ring?: 0 | 3; irqchip?: boolean; vcpus?: number } = {},
): Promise<Vm> {
  const { mode = 'long', ring = 0, irqchip = false, vcpus = 1 } = options;
  return createVm({
    memory: MiB(4),
    irqchip,
    vcpus,
    bare: {
      image: Uint8Array.from([...code, ...Array(64).fill(0xf4)]),
      format: 'flat',
      mode,
      ring,
      loadAddress: CODE_AT,
    },
  });
}

/** The bytes of a 16-bit operand. */
export const u16 = (value: number): [number, number] => [value & 0xff, value >> 8];
/** The bytes of a 32-bit operand. */
export const u32 = (value: number): [number, number, number, number] => [
  value & 0xff,
  (value >>> 8) & 0xff,
  (value >>> 16) & 0xff,
  value >>> 24,
];

/** `mov edx, port` (32 and 64-bit modes). */
export const movEdx = (port: number): number[] => [0xba, ...u32(port)];
/** `mov eax, value`. */
export const movEax = (value: number): number[] => [0xb8, ...u32(value)];
export const OUT_DX_AL = 0xee;
export const OUT_DX_EAX = 0xef;
export const IN_AL_DX = 0xec;
export const IN_EAX_DX = 0xed;
/** `jmp .` */
export const SPIN = [0xeb, 0xfe];

/** Writes `value` to `port` as a byte. */
export const outByte = (port: number, value: number): number[] => [
  ...movEdx(port),
  ...movEax(value),
  OUT_DX_AL,
];
