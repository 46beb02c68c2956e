/**
 * Task state segment with an I/O permission bitmap (Intel SDM volume 3, 8.2.1, 8.7; volume 1,
 * 19.5.2). Ring 3 with IOPL 0 may use exactly the ports whose bit is clear.
 */
import { requireArgument } from '../../errors.js';
import { StructWriter } from '../bytes.js';

/** 32- and 64-bit TSS have the same length, and the bitmap's offset at the same place. */
const TSS_SIZE = 104;
const BITMAP_OFFSET_FIELD = 102;
const BITMAP_SIZE = 0x10000 / 8;
/** The CPU reads two bytes at a time, so a byte of ones must follow the bitmap. */
const TSS_TOTAL = TSS_SIZE + BITMAP_SIZE + 1;
export const TSS_LIMIT = TSS_TOTAL - 1;

export interface PortRange {
  base: number;
  count: number;
}
/** Which ports code in ring 3 may use. */
export type PortPermission = 'all' | 'none' | readonly PortRange[];

/** `stack0` is loaded, in 32-bit mode with the selector `ss0`, when ring 3 is interrupted. */
export function encodeTss(
  bits: 32 | 64,
  stack0: bigint,
  ss0: number,
  ports: PortPermission,
): Uint8Array {
  const tss = new StructWriter(TSS_TOTAL).u16(BITMAP_OFFSET_FIELD, TSS_SIZE);
  if (bits === 64) tss.u64(4, stack0);
  else tss.u32(4, Number(stack0)).u16(8, ss0);
  const bitmap = tss.bytes.subarray(TSS_SIZE);
  bitmap[BITMAP_SIZE] = 0xff;
  if (ports === 'all') return tss.bytes;
  bitmap.fill(0xff);
  if (ports === 'none') return tss.bytes;
  for (const { base, count } of ports) {
    requireArgument(
      Number.isInteger(base) && Number.isInteger(count) && base >= 0 && count >= 1,
      'tssPorts: a range needs a whole base and a count of at least 1',
    );
    requireArgument(base + count <= 0x10000, 'tssPorts: the last port is 0xffff');
    for (let port = base; port < base + count; port++) bitmap[port >> 3]! &= ~(1 << (port & 7));
  }
  return tss.bytes;
}
