/**
 * Fixed ACPI Description Table, revision 6.5 (ACPI specification 6.5, 5.2.9), for a
 * hardware-reduced machine: no PM1 registers, PM timer or SCI. Linux then leaves PIC and PIT alone
 * and takes its ticks from the local APIC, and masks LINT0 when it first disables the APIC in
 * software, so the PIC that KVM also has stays silent.
 */
import { StructWriter } from '../bytes.js';
import { RESET_CONTROL_PORT, RESET_CONTROL_VALUE } from '../firmware.js';
import { HEADER_SIZE, table } from './header.js';

const FADT_SIZE = 276;
const REVISION = 6;
const MINOR_REVISION = 5;

/** Table 5.10: boot architecture flags. No bit for an 8042: the machine has only its reset command. */
const LEGACY_DEVICES = 1 << 0;
const VGA_NOT_PRESENT = 1 << 2;
const MSI_NOT_SUPPORTED = 1 << 3;

/** Table 5.9: fixed feature flags. Button bits mean "no fixed-hardware button". */
const WBINVD = 1 << 0;
const PROC_C1 = 1 << 2;
const PWR_BUTTON = 1 << 4;
const SLP_BUTTON = 1 << 5;
const RESET_REG_SUP = 1 << 10;
const HW_REDUCED_ACPI = 1 << 20;

/** Sleep registers (4.8.3.7): the guest writes SLP_TYP << 2 | SLP_EN (0x20) to the first. */
const SLEEP_CONTROL_PORT = 0x600n;
const SLEEP_STATUS_PORT = 0x601n;

/** Generic Address Structure of a byte-wide I/O port (5.2.3.2). */
function ioPort(port: bigint): Uint8Array {
  return new StructWriter(12).u8(0, 1).u8(1, 8).u8(2, 0).u8(3, 1).u64(4, port).bytes;
}

export function fadt(dsdt: bigint): Uint8Array {
  const at = (offset: number): number => offset - HEADER_SIZE;
  const body = new StructWriter(FADT_SIZE - HEADER_SIZE)
    .u16(at(109), LEGACY_DEVICES | VGA_NOT_PRESENT | MSI_NOT_SUPPORTED)
    .u32(at(112), WBINVD | PROC_C1 | PWR_BUTTON | SLP_BUTTON | RESET_REG_SUP | HW_REDUCED_ACPI)
    .raw(at(116), ioPort(BigInt(RESET_CONTROL_PORT)))
    .u8(at(128), RESET_CONTROL_VALUE)
    .u8(at(131), MINOR_REVISION)
    .u64(at(140), dsdt)
    .raw(at(244), ioPort(SLEEP_CONTROL_PORT))
    .raw(at(256), ioPort(SLEEP_STATUS_PORT));
  return table('FACP', REVISION, body.bytes);
}
