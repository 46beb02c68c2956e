/**
 * kvmsnap: micro-VMs on /dev/kvm whose whole state is a value.
 *
 * @packageDocumentation
 */
export { packInitrd } from './boot/index.js';
export type { CpuidEntry } from './cpu/cpuid-entries.js';
export { MSR, type MsrEntry, msrIndex, msrName } from './cpu/msrs.js';
export type { DescriptorTable, Regs, Segment, Sregs } from './cpu/registers.js';
export type { CpuTemplate } from './cpu/template.js';
export { ERROR_CODES, type ErrorCode, KvmsnapError } from './errors.js';
export type { MachineStatus, RawMachineState } from './native/binding.js';
export type { Difference } from './snapshot/compat.js';
export type { HostFacts, MachineDescription, SnapshotConfig } from './snapshot/config.js';
export type { GcOptions, GcResult } from './snapshot/gc.js';
export type { SnapshotEntry, SnapshotSummary } from './snapshot/list.js';
export { SnapshotStore, type StoreOptions } from './snapshot/store.js';
export type { VerifyProblem, VerifyReport } from './snapshot/verify.js';
export { GiB, KiB, MiB, PAGE_SIZE } from './units.js';
export type { Claim, MmioClaim, PortClaim } from './vm/claims.js';
export type { Console } from './vm/console.js';
export type { FlattenOptions } from './vm/flatten.js';
export type { ForkOptions } from './vm/fork.js';
export type { DirtyLog, MemorySlot, VmMemory } from './vm/memory.js';
export type { MemorySnapshot } from './vm/memory-snapshot.js';
export type { BareGuest, DeviceOptions, LinuxGuest, VmOptions } from './vm/options.js';
export type { OutputStream } from './vm/output.js';
export type { SnapshotOptions, SnapshotStats } from './vm/save.js';
export { type RestoreOptions, Snapshot } from './vm/snapshot.js';
export type { Vcpu, VcpuExit } from './vm/vcpu.js';
export { type StopInfo, Vm } from './vm/vm.js';
