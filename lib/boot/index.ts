/**
 * Everything that puts a guest into memory and gives the boot vCPU its entry state. Planning is
 * pure; only `readKernelFile`, `readInitrd` and `packInitrd` read files.
 */
export type { AcpiDevice } from './acpi/dsdt.js';
export { S5_SLEEP_TYPE } from './acpi/dsdt.js';
export type { InterruptResource } from './acpi/resources.js';
export { BARE_SELECTORS } from './bare/entry.js';
export { type BareOptions, planBare } from './bare/plan.js';
export type { PortPermission, PortRange } from './bare/tss.js';
export { readInitrd, readKernelFile } from './files.js';
export { isBootedByFirmware } from './firmware.js';
export { type PackOptions, packInitrd } from './initrd/pack.js';
export { BARE_LAYOUT, GENERATION_ID_GSI, LINUX_LAYOUT, LOW_MEMORY } from './layout.js';
export { type LinuxOptions, planLinux } from './linux/plan.js';
export type { SetupData } from './linux/zeropage.js';
export type { BootPlan, EntryState, FirmwareState } from './plan.js';
export { inRam, type RamRange, ramRanges } from './ram.js';
