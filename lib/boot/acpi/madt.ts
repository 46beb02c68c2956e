/** Multiple APIC Description Table (ACPI specification 6.5, 5.2.12). */
import { concat, StructWriter } from '../bytes.js';
import { IOAPIC_BASE, LAPIC_BASE } from '../layout.js';
import { table } from './header.js';

const REVISION = 6;
/** Dual 8259A present: KVM's irqchip has it. */
const PCAT_COMPAT = 1;
const ENABLED = 1;
const ALL_PROCESSORS = 0xff;
const LINT1 = 1;
const ISA = 0;

const localApic = (id: number): Uint8Array =>
  new StructWriter(8).u8(0, 0).u8(1, 8).u8(2, id).u8(3, id).u32(4, ENABLED).bytes;

const ioApic = (): Uint8Array =>
  new StructWriter(12).u8(0, 1).u8(1, 12).u32(4, Number(IOAPIC_BASE)).u32(8, 0).bytes;

/** Flags 0: polarity and trigger of the bus, which for ISA is active high, edge. */
const isaOverride = (irq: number, gsi: number): Uint8Array =>
  new StructWriter(10).u8(0, 2).u8(1, 10).u8(2, ISA).u8(3, irq).u32(4, gsi).u16(8, 0).bytes;

const localApicNmi = (): Uint8Array =>
  new StructWriter(6).u8(0, 4).u8(1, 6).u8(2, ALL_PROCESSORS).u16(3, 0).u8(5, LINT1).bytes;

/**
 * `vcpus` processors with APIC IDs 0, 1, … and one IOAPIC.
 *
 * Every ISA interrupt n is GSI n: KVM's default routing (Linux arch/x86/kvm/irq_comm.c) connects
 * GSI 0, the PIT, to IOAPIC pin 0 and not to pin 2 as PCs do, so an override of IRQ 0 would be
 * wrong. `isaIrqs` are stated all the same: hardware-reduced Linux sets up just those ISA interrupts
 * that the MADT names, so that a driver bound to the legacy port gets its interrupt even where the
 * ACPI device is not probed.
 */
export function madt(vcpus: number, isaIrqs: readonly number[]): Uint8Array {
  const head = new StructWriter(8).u32(0, Number(LAPIC_BASE)).u32(4, PCAT_COMPAT).bytes;
  const processors = Array.from({ length: vcpus }, (_, id) => localApic(id));
  const overrides = isaIrqs.map((irq) => isaOverride(irq, irq));
  return table(
    'APIC',
    REVISION,
    concat([head, ...processors, ioApic(), ...overrides, localApicNmi()]),
  );
}
