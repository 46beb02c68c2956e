/**
 * The VM generation ID (Microsoft, "Virtual Machine Generation ID"): a GUID in memory of which the
 * firmware tells where it is, and a notification when it has changed. Linux's driver vmgenid then
 * mixes it into its random number generator and seeds it anew.
 *
 * A hardware-reduced machine has no SCI and no GPE, so the event comes through a generic event device
 * (ACPI specification 6.5, 5.6.9): an interrupt of its own.
 */
import {
  type Aml,
  device,
  ifArg0Is,
  integer,
  method,
  name,
  notify,
  packageOf,
  string,
} from './aml.js';
import { interrupt, resourceTemplate } from './resources.js';

export const GENERATION_ID_DEVICE = 'VGEN';
export const EVENT_DEVICE = 'GED0';

/** "The ID has changed." */
const CHANGED = 0x80;

/** Both devices, for `\\_SB`. */
export function generationIdDevices({ gpa, gsi }: { gpa: bigint; gsi: number }): Aml[] {
  const [low, high] = [gpa & 0xffffffffn, gpa >> 32n];
  return [
    device(GENERATION_ID_DEVICE, [
      // The specification leaves _HID to the vendor; drivers look for _CID. Hyper-V has the second.
      name('_HID', string('KVSN0001')),
      name('_CID', packageOf([string('VM_Gen_Counter'), string('VMGENCTR')])),
      name('_DDN', string('VM_Gen_Counter')),
      name('ADDR', packageOf([integer(low), integer(high)])),
    ]),
    device(EVENT_DEVICE, [
      name('_HID', string('ACPI0013')),
      name('_UID', integer(0)),
      name('_CRS', resourceTemplate([interrupt({ gsi })])),
      method('_EVT', 1, [ifArg0Is(gsi, [notify(GENERATION_ID_DEVICE, CHANGED)])]),
    ]),
  ];
}
