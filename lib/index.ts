/**
 * kvmsnap: micro-VMs on /dev/kvm whose whole state is a value.
 *
 * @packageDocumentation
 */

export type { PortPermission, PortRange } from './boot/bare/tss.js';
export { packInitrd } from './boot/index.js';
export type { PackOptions } from './boot/initrd/pack.js';
export type { SetupData } from './boot/linux/zeropage.js';
export type { CpuidEntry, CpuidRegister } from './cpu/cpuid-entries.js';
export type { MpState, VcpuEvents } from './cpu/events.js';
export type { Lapic } from './cpu/lapic.js';
export { MSR, type MsrEntry, msrIndex, msrName } from './cpu/msrs.js';
export type { DebugRegs, DescriptorTable, Regs, Segment, Sregs, Xcrs } from './cpu/registers.js';
export type { VcpuSectionValue } from './cpu/sections.js';
export type { Patch } from './cpu/struct.js';
export type { CpuidClear, CpuTemplate } from './cpu/template.js';
export type { Xsave } from './cpu/xsave.js';
export {
  dirtyRate,
  type HeatMap,
  heatMap,
  redirtyHistogram,
  writableWorkingSet,
} from './dirty/analysis.js';
export {
  DirtyEpoch,
  type DirtySlot,
  type EpochFacts,
  type PageRun,
  TRACKERS,
  type TrackerName,
} from './dirty/epoch.js';
export type { DirtyOptions } from './dirty/track.js';
export { ERROR_CODES, type ErrorCode, KvmsnapError, type KvmsnapErrorOptions } from './errors.js';
export type {
  GuestStopReason,
  MachineStatus,
  RawDeviceState,
  RawMachineState,
  RawStop,
  RawVcpuState,
  RawVmState,
  VcpuSection,
} from './native/binding.js';
export type { OnProgress } from './progress.js';
export type { Difference } from './snapshot/compat.js';
export type { HostFacts, MachineDescription, SnapshotConfig } from './snapshot/config.js';
export type { GcOptions, GcResult } from './snapshot/gc.js';
export type { StoreLimits } from './snapshot/limits.js';
export type { SnapshotEntry, SnapshotSummary } from './snapshot/list.js';
export type { ReadOptions } from './snapshot/reading.js';
export { SnapshotStore, type StoreOptions } from './snapshot/store.js';
export type { VerifyOptions, VerifyProblem, VerifyReport } from './snapshot/verify.js';
export { GiB, KiB, MiB, PAGE_SIZE } from './units.js';
export type { Claim, MmioClaim, PortClaim } from './vm/claims.js';
export type { Console } from './vm/console.js';
export type { FlattenOptions } from './vm/flatten.js';
export type { ForkOptions, Forks } from './vm/fork.js';
export type { GenerationIdPlace, IdentityOptions } from './vm/identity.js';
export type { DirtyLog, MemorySlot, VmMemory } from './vm/memory.js';
export type { MemorySnapshot } from './vm/memory-snapshot.js';
export type { PageInOptions } from './vm/on-demand.js';
export type { BareGuest, DeviceOptions, LinuxGuest, VmOptions } from './vm/options.js';
export type { OutputStream } from './vm/output.js';
export type { PageSource, PagingFacts, PagingOptions, WorkingSet } from './vm/paging.js';
export { Pool, type PoolOptions, type PoolStats } from './vm/pool.js';
export type { SnapshotOptions, SnapshotStats } from './vm/save.js';
export { type OpenOptions, type RestoreOptions, Snapshot } from './vm/snapshot.js';
export type { PatchableSection, Vcpu, VcpuExit } from './vm/vcpu.js';
export { type StopInfo, Vm } from './vm/vm.js';
