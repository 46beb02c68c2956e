/** Differentiated System Description Table: the devices that nothing else describes. */
import { requireArgument } from '../../errors.js';
import { concat } from '../bytes.js';
import { type Aml, device, eisaId, integer, name, packageOf, path, scope, string } from './aml.js';
import { EVENT_DEVICE, GENERATION_ID_DEVICE, generationIdDevices } from './generation-id.js';
import { table } from './header.js';
import {
  type InterruptResource,
  interrupt,
  ioPorts,
  memory32,
  type Resource,
  resourceTemplate,
} from './resources.js';

/** Integers are 64 bits wide from revision 2 on. */
const REVISION = 2;
/** What `\_S5` says; the guest writes it as SLP_TYP to power off. */
export const S5_SLEEP_TYPE = 5;
export const COM1_IRQ = 4;

/** A device below `\_SB` for the guest to find. */
export interface AcpiDevice {
  /**
   * One to four characters, unique, for example `V000`. Not `COM1`, `RTC0`, `VGEN`, `GED0` or `C` +
   * three digits.
   */
  name: string;
  /** `_HID`: a PNP ID (`PNP0501`) or an ACPI ID (`LNRO0005` for virtio-mmio). */
  hid: string;
  /** `_UID`, unique among devices with the same `hid`. */
  uid: number;
  /** MMIO ranges below 4 GiB. */
  memory?: readonly { base: number | bigint; length: number }[];
  ports?: readonly { base: number; length: number }[];
  interrupts?: readonly InterruptResource[];
  /** `_CCA` 1: DMA is coherent. Default false: the object is left out, as x86 does not need it. */
  coherent?: boolean;
}

/** Owned by the table itself; processors are `C000`, `C001`, … in hexadecimal. */
const RESERVED_NAME = new RegExp(
  `^(COM1|RTC0|${GENERATION_ID_DEVICE}|${EVENT_DEVICE}|C[0-9A-F]{3})$`,
);

function encodeDevice(each: AcpiDevice): Aml {
  const resources: Resource[] = [
    ...(each.memory ?? []).map(({ base, length }) => memory32(base, length)),
    ...(each.ports ?? []).map(({ base, length }) => ioPorts(base, length)),
    ...(each.interrupts ?? []).map(interrupt),
  ];
  const isEisa = /^[A-Z]{3}[0-9A-F]{4}$/.test(each.hid);
  requireArgument(
    isEisa || /^[A-Z0-9]{4}[0-9A-F]{4}$/.test(each.hid),
    `"${each.hid}" is no hardware ID: a PNP ID such as PNP0501 or an ACPI ID such as LNRO0005`,
  );
  return device(each.name, [
    name('_HID', isEisa ? eisaId(each.hid) : string(each.hid)),
    name('_UID', integer(each.uid)),
    ...(each.coherent ? [name('_CCA', integer(1))] : []),
    ...(resources.length > 0 ? [name('_CRS', resourceTemplate(resources))] : []),
  ]);
}

/** Linux pairs a processor device with its MADT entry by `_UID`. */
const processor = (id: number): Aml =>
  device(`C${id.toString(16).toUpperCase().padStart(3, '0')}`, [
    name('_HID', string('ACPI0007')),
    name('_UID', integer(id)),
  ]);

const BUILT_IN: readonly AcpiDevice[] = [
  {
    name: 'COM1',
    hid: 'PNP0501',
    uid: 0,
    ports: [{ base: 0x3f8, length: 8 }],
    interrupts: [{ gsi: COM1_IRQ }],
  },
  // No interrupt: the RTC has no alarm, and Linux then does not ask for IRQ 8.
  { name: 'RTC0', hid: 'PNP0B00', uid: 0, ports: [{ base: 0x70, length: 2 }] },
];

/** Throws `ERR_INVALID_ARGUMENT` for a device that cannot be described or a name used twice. */
export function dsdt(
  vcpus: number,
  devices: readonly AcpiDevice[],
  generationId?: { gpa: bigint; gsi: number },
): Uint8Array {
  const names = new Set<string>();
  for (const each of devices) {
    const canonical = new TextDecoder().decode(path(each.name));
    requireArgument(
      !RESERVED_NAME.test(canonical) && !names.has(canonical),
      `ACPI device name ${each.name} is taken; give each device its own`,
    );
    names.add(canonical);
  }
  const s5 = packageOf([S5_SLEEP_TYPE, 0, 0, 0].map(integer));
  const processors = Array.from({ length: vcpus }, (_, id) => processor(id));
  const body = concat([
    name('\\_S5', s5),
    scope('\\_SB', [
      ...processors,
      ...[...BUILT_IN, ...devices].map(encodeDevice),
      ...(generationId ? generationIdDevices(generationId) : []),
    ]),
  ]);
  return table('DSDT', REVISION, body);
}
