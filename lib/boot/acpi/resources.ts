/** Resource descriptors for `_CRS` (ACPI specification 6.5, section 6.4). */
import { requireArgument } from '../../errors.js';
import { concat, StructWriter } from '../bytes.js';
import { type Aml, buffer } from './aml.js';

export interface InterruptResource {
  /** Global system interrupt: for KVM's irqchip the pin of the IOAPIC. */
  gsi: number;
  /** Default `edge`. */
  trigger?: 'edge' | 'level';
  /** Default `high`. */
  polarity?: 'high' | 'low';
}

/** A descriptor, encoded. */
export type Resource = Uint8Array;

/** I/O ports [base, base + length), decoded with 16 bits (6.4.2.5). */
export function ioPorts(base: number, length: number): Resource {
  requireArgument(
    Number.isInteger(base) && Number.isInteger(length) && base >= 0 && length >= 1 && length <= 255,
    'an I/O port range needs an integer base and 1 to 255 ports',
  );
  requireArgument(base + length <= 0x10000, 'an I/O port range ends at 0x10000 at the latest');
  return new StructWriter(8).u8(0, 0x47).u8(1, 1).u16(2, base).u16(4, base).u8(6, 1).u8(7, length)
    .bytes;
}

/** Extended interrupt descriptor with one interrupt (6.4.3.6). */
export function interrupt(resource: InterruptResource): Resource {
  requireArgument(
    Number.isInteger(resource.gsi) && resource.gsi >= 0 && resource.gsi < 24,
    `gsi ${resource.gsi} is no pin of the IOAPIC: 0 to 23`,
  );
  const consumer = 1;
  const edge = resource.trigger === 'level' ? 0 : 2;
  const low = resource.polarity === 'low' ? 4 : 0;
  return new StructWriter(9)
    .u8(0, 0x89)
    .u16(1, 6)
    .u8(3, consumer | edge | low)
    .u8(4, 1)
    .u32(5, resource.gsi).bytes;
}

/** Fixed read-write memory below 4 GiB (6.4.3.4). */
export function memory32(base: number | bigint, length: number): Resource {
  requireArgument(
    (typeof base === 'bigint' || Number.isSafeInteger(base)) &&
      base >= 0 &&
      Number.isSafeInteger(length) &&
      length > 0,
    'a memory range needs a base and a positive length, both whole numbers',
  );
  requireArgument(
    BigInt(base) + BigInt(length) < 1n << 32n,
    'the memory range of an ACPI device lies below 4 GiB',
  );
  return new StructWriter(12).u8(0, 0x86).u16(1, 9).u8(3, 1).u32(4, Number(base)).u32(8, length)
    .bytes;
}

/** A resource template. The end tag's checksum 0 means "not checked" (6.4.2.9). */
export const resourceTemplate = (resources: readonly Resource[]): Aml =>
  buffer(concat([...resources, Uint8Array.of(0x79, 0)]));
