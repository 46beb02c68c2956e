/** The whole set of ACPI tables, laid out for one address (ACPI specification 6.5, 5.2). */
import { alignUp, concat, StructWriter } from '../bytes.js';
import { type AcpiDevice, COM1_IRQ, dsdt } from './dsdt.js';
import { fadt } from './fadt.js';
import { checksum, OEM_ID, table } from './header.js';
import { madt } from './madt.js';

export type { AcpiDevice } from './dsdt.js';

const RSDP_SIZE = 36;
const RSDP_V1_SIZE = 20;
const XSDT_REVISION = 1;
const ALIGNMENT = 16n;

export interface AcpiOptions {
  /** Guest physical address of the first byte, 16-byte aligned: the RSDP. */
  base: bigint;
  vcpus: number;
  devices: readonly AcpiDevice[];
  /** Where the VM generation ID lies, and what input of the IOAPIC says that it has changed. */
  generationId?: { gpa: bigint; gsi: number };
}

/** Root System Description Pointer, revision 2 (5.2.5.3). */
function rsdp(xsdt: bigint): Uint8Array {
  const bytes = new StructWriter(RSDP_SIZE)
    .ascii(0, 'RSD PTR ')
    .ascii(9, OEM_ID)
    .u8(15, 2)
    .u32(20, RSDP_SIZE)
    .u64(24, xsdt);
  bytes.u8(8, checksum(bytes.bytes.subarray(0, RSDP_V1_SIZE)));
  return bytes.u8(32, checksum(bytes.bytes)).bytes;
}

function xsdt(tables: readonly bigint[]): Uint8Array {
  const body = new StructWriter(tables.length * 8);
  tables.forEach((address, index) => {
    body.u64(index * 8, address);
  });
  return table('XSDT', XSDT_REVISION, body.bytes);
}

/** The tables as they lie from `base` on, and where the RSDP is. */
export function acpiTables(options: AcpiOptions): { bytes: Uint8Array; rsdp: bigint } {
  const parts: Uint8Array[] = [new Uint8Array(RSDP_SIZE)];
  let end = options.base + BigInt(RSDP_SIZE);
  const place = (bytes: Uint8Array): bigint => {
    const at = alignUp(end, ALIGNMENT);
    parts.push(new Uint8Array(Number(at - end)), bytes);
    end = at + BigInt(bytes.length);
    return at;
  };
  // Each table before the one that points to it.
  const dsdtAt = place(dsdt(options.vcpus, options.devices, options.generationId));
  const fadtAt = place(fadt(dsdtAt));
  const madtAt = place(madt(options.vcpus, [COM1_IRQ]));
  const xsdtAt = place(xsdt([fadtAt, madtAt]));
  parts[0] = rsdp(xsdtAt);
  return { bytes: concat(parts), rsdp: options.base };
}
