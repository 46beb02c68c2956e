/**
 * The raw addon, typed. Nothing outside `lib/` sees these types; nothing here validates or
 * defaults: callers do. Native functions re-check types and memory safety only.
 *
 * Conventions: sizes are numbers of bytes, guest addresses (gpa) are `bigint`; byte arrays are
 * copies. A native failure throws or rejects with the `KvmsnapError` class handed to `setup`.
 */
import type { KvmsnapError } from '../errors.js';

/** Raw kernel structs of one vCPU, by kernel name; lengths are the kernel's. */
export interface RawVcpuState {
  /** `kvm_cpuid_entry2[]`, 40 bytes each. */
  cpuid2: Uint8Array;
  regs: Uint8Array;
  sregs2: Uint8Array;
  /** KVM_GET_XSAVE2: 4096 bytes or more, the standard (non-compacted) XSAVE layout. */
  xsave2: Uint8Array;
  xcrs: Uint8Array;
  debugregs: Uint8Array;
  /** `kvm_msr_entry[]`, 16 bytes each: u32 index, u32 reserved, u64 data. */
  msrs: Uint8Array;
  /** Absent without an in-kernel irqchip. */
  lapic?: Uint8Array;
  vcpu_events: Uint8Array;
  mp_state: Uint8Array;
  /** Guest TSC frequency in kHz (KVM_GET_TSC_KHZ). */
  tsc_khz: number;
}
export type VcpuSection = Exclude<keyof RawVcpuState, 'tsc_khz'>;

/** Raw kernel structs of the VM. All but `clock` absent without an in-kernel irqchip. */
export interface RawVmState {
  /** `kvm_irqchip` (520 bytes) of the master PIC, the slave PIC and the IOAPIC. */
  pic_master?: Uint8Array;
  pic_slave?: Uint8Array;
  ioapic?: Uint8Array;
  pit2?: Uint8Array;
  clock: Uint8Array;
}

/** State of one native device: one documented field per architected register. */
export type RawDeviceState = Record<string, number | bigint | Uint8Array>;

/** An end of a machine by its guest. */
export interface RawStop {
  /** As `StopInfo` has them, but for those that leave a machine poisoned. */
  reason: GuestStopReason;
  /** What the guest wrote to the exit port, for `exit-port` only; 32 bits. */
  code?: number;
}
export type GuestStopReason = 'exit-port' | 'reset' | 'shutdown' | 'power-off' | 'halt';

export interface RawMachineState {
  vm: RawVmState;
  vcpus: RawVcpuState[];
  /** By device name: `serial`, `i8042`, `cmos`, … */
  devices: Record<string, RawDeviceState>;
  /** How the guest has ended the machine; absent for one that can run on. */
  stopped?: RawStop;
}

export interface NativeRegion {
  slot: number;
  gpa: bigint;
  /** Bytes, a multiple of 4096. */
  size: number;
  /** KVM_MEM_LOG_DIRTY_PAGES (1) | KVM_MEM_READONLY (2). */
  flags: number;
}

export interface NativeDevices {
  /** 16550A at 0x3f8, IRQ 4. */
  serial: boolean;
  /** i8042 at 0x60/0x64: command 0xFE resets, which stops the machine. */
  i8042: boolean;
  /** Bytes written to port 0xE9 go to the debug stream; reads give 0xE9. */
  debugPort: boolean;
  /** Port whose written value stops the machine with that exit code; 0: none. */
  exitPort: number;
  /** MC146818 RTC and CMOS at 0x70/0x71. */
  cmos: boolean;
  /** ACPI sleep control and status registers at 0x600/0x601: S5 stops the machine. */
  acpiPower: boolean;
}

export interface NativeMachineConfig {
  regions: NativeRegion[];
  /** In-kernel PIC, IOAPIC, LAPIC and PIT. */
  irqchip: boolean;
  /** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: getDirtyLog reads only, clearDirtyLog re-arms. */
  manualDirtyLog: boolean;
  /** Entries of each vCPU's dirty ring (KVM_CAP_DIRTY_LOG_RING); none: slots have logs instead. */
  dirtyRing?: number;
  devices: NativeDevices;
  /** One `kvm_cpuid_entry2[]` for each vCPU; its length is the number of vCPUs. */
  cpuid: Uint8Array[];
  /** State to start with. Otherwise what KVM gives a new vCPU. */
  state?: RawMachineState;
}

declare const prepared: unique symbol;
/** A checked configuration inside the addon; opaque. */
export interface NativePreparedMachine {
  readonly [prepared]: true;
}

/** A machine's instant, from which others can be made. */
export interface NativeFrozen {
  machine: NativePreparedMachine;
  image: NativeImage;
  /** The machine had stopped, and those that are made of it are stopped from the start. */
  stopped?: RawStop;
  pauseUs: number;
}

/** Guest clocks go on from where they stood, or have gone on as the host's did. */
export type NativeClock = 'keep' | 'host';

export type MachineStatus = 'created' | 'running' | 'paused' | 'stopped' | 'poisoned' | 'closed';

/** A run of pages, one after the other. */
export interface PageRun {
  /** Address of the first. */
  gpa: bigint;
  /** Number of pages. */
  count: number;
}

/** How memory comes on demand. */
export interface NativePaging {
  /** Pages are asked for by `events.pages`; otherwise the image's files are read. */
  asks: boolean;
  /** Bytes brought in for one fault; whole pages. */
  faultBytes: number;
  /** Brought in from the start, in this order. */
  prefetch: readonly PageRun[];
}

export interface NativePagingFacts {
  active: boolean;
  faults: number;
  /** Pages, by what brought them. */
  faulted: number;
  prefetched: number;
  fetched: number;
  left: number;
  p50Us: number;
  p99Us: number;
}

/** Why a machine stopped by itself, or was poisoned. */
export interface NativeStop {
  /**
   * `exit-port`: the guest wrote `code`. `reset`: i8042, ACPI or KVM reset, or a
   * triple fault by which Linux reboots. `shutdown`: any other triple fault.
   * `power-off`: ACPI S5. `halt`: `hlt` with interrupts off, without irqchip or by what
   * {@link endIfHalted} found. `killed`: by `kill()`.
   * `error`: see `error`. `closed`: by `handOver()`.
   */
  reason: GuestStopReason | 'killed' | 'error' | 'closed';
  code?: number;
  error?: KvmsnapError;
}

/** A vCPU exit handed to JavaScript, decoded from `struct kvm_run` (Documentation/virt/kvm/api.rst). */
export type NativeExit =
  | {
      kind: 'io';
      direction: 'in' | 'out';
      port: number;
      size: 1 | 2 | 4;
      count: number;
      data: Uint8Array;
    }
  | { kind: 'mmio'; write: boolean; gpa: bigint; size: number; data: Uint8Array }
  | { kind: 'hlt' }
  | { kind: 'debug'; exception: number; pc: bigint; dr6: bigint; dr7: bigint }
  | { kind: 'shutdown' }
  | { kind: 'system-event'; type: number }
  | { kind: 'fail-entry'; reason: bigint; cpu: number }
  | { kind: 'internal-error'; suberror: number; data: BigUint64Array }
  | { kind: 'interrupted' }
  | { kind: 'dirty-ring-full' }
  | { kind: 'error'; errno: number }
  | { kind: 'unsupported'; reason: number };

export interface NativeEvents {
  /** The machine stopped or was poisoned, in its life number `life`. Called once for each stop. */
  stopped(stop: NativeStop, life: number): void;
  /** Bytes the guest wrote to its serial port (`stream` 0) or to the debug port (1). */
  output(stream: 0 | 1, bytes: Uint8Array): void;
  /**
   * A vCPU touched a claimed range and waits until `completeExit(vcpu, question, …)` is called. For
   * `in` and MMIO reads `data` is the buffer to answer with (count * size bytes).
   */
  exit(vcpu: number, question: number, claim: number, exit: NativeExit): void;
  /** Pages are wanted: `answerPages(id, …)` has `length` bytes, or an error. */
  pages?(id: number, gpa: bigint, length: number): void;
  /** No page comes on demand any more: all are there, or none will be. */
  pagingEnded?(): void;
}

/** The pages of one slot that were written. */
export interface NativeDirtySlot {
  slot: number;
  gpa: bigint;
  /** Size of the slot in pages. */
  pages: number;
  /** How many bits are set. */
  count: number;
  /** Bit n % 8 of byte n / 8 is page n. */
  bitmap: Uint8Array;
}

export interface NativeMachine {
  readonly status: MachineStatus;
  /** Who hears of events; nobody of a machine that was just handed over. */
  events: NativeEvents | undefined;
  /** created | paused -> running. A machine made with a `state` is paused at first. */
  resume(): Promise<void>;
  /** running -> paused; resolves when every vCPU stands still at a clean instruction boundary. */
  pause(): Promise<void>;
  /**
   * running -> stopped, `halt`, if every vCPU is halted with interrupts off, so that nothing wakes any of
   * them. A running guest stands still meanwhile, for some 100 microseconds.
   */
  endIfHalted(): Promise<void>;
  /** How often the guest has used a native device, modulo 2 ** 32. */
  deviceAccesses(): number;
  /** Any state -> poisoned, even while a vCPU waits for a JavaScript handler. */
  kill(): Promise<void>;
  /** Frees everything; resolves when threads, fds and mappings are gone. Idempotent. */
  close(): Promise<void>;
  /**
   * Ends this ownership, and gives the machine, killed, to a new object. From the call on this one is
   * closed: its calls fail with ERR_CLOSED, and so do jobs that wait; those that were begun are done before.
   * What the guest wrote before the call is told first. When it rejects, the machine is still to be closed.
   */
  handOver(): Promise<NativeMachine>;
  /** A running machine keeps Node's event loop alive unless unref'd. */
  ref(): void;
  unref(): void;

  // Memory that comes on demand.
  /** A machine made with paging and a state gets that state by this. */
  enterState(): Promise<void>;
  /** Brings in what is missing of these ranges, or of all memory. */
  pageIn(ranges?: readonly PageRun[]): { done: Promise<void>; cancel(): void };
  /** An answer that comes too late is dropped. */
  answerPages(id: number, bytes: Uint8Array | KvmsnapError): void;
  /** None when memory does not come on demand. */
  pagingFacts(): NativePagingFacts | undefined;
  /** What was first touched, in order. */
  workingSet(): PageRun[] | undefined;

  // Guest memory, by copy. Allowed in every state but closed. ERR_STATE for pages that are still to
  // come from JavaScript.
  readMemory(gpa: bigint, length: number): Uint8Array;
  writeMemory(gpa: bigint, bytes: Uint8Array): void;

  // Slots: the machine must not be running.
  regions(): NativeRegion[];
  addSlot(region: NativeRegion): Promise<void>;
  removeSlot(slot: number): Promise<void>;
  setSlotFlags(slot: number, flags: number): Promise<void>;
  /** Joined with what the VMM wrote itself. One bit a page. KVM_GET_DIRTY_LOG. */
  getDirtyLog(slot: number): Promise<Uint8Array>;
  /** KVM_CLEAR_DIRTY_LOG; needs `manualDirtyLog`. `firstPage` is a multiple of 64. */
  clearDirtyLog(slot: number, firstPage: number, pages: number, bitmap: Uint8Array): Promise<void>;

  // Dirty tracking, one tracker at a time: else ERR_STATE. Any state but poisoned and closed.
  /** `bitmap`, `bitmap-manual`, `ring`, `uffd-wp`, `pagemap`, `cow`. */
  startTracking(tracker: string): Promise<void>;
  /** What was written since the last call. `lostUs`: guest time that went into tracking since. */
  harvestDirty(): Promise<{ slots: NativeDirtySlot[]; harvestUs: number; lostUs: number }>;
  stopTracking(): Promise<void>;

  // Registers: the machine must not be running.
  getVcpu(vcpu: number, section: VcpuSection): Promise<Uint8Array>;
  setVcpu(vcpu: number, section: VcpuSection, bytes: Uint8Array): Promise<void>;
  /** KVM_SET_IRQCHIP, `struct kvm_irqchip`, whose `chip_id` says which. `ERR_STATE` without irqchip. */
  setIrqchip(chip: Uint8Array): Promise<void>;
  /** MSRs by index -> kvm_msr_entry[]. */
  getMsrs(vcpu: number, indices: Uint32Array): Promise<Uint8Array>;
  /** Runs one vCPU until its next exit. `dispatch`: devices and claims answer theirs first. */
  runVcpu(vcpu: number, options: { dispatch: boolean; singleStep: boolean }): Promise<NativeExit>;
  /** Data for the `in` or MMIO read that the last `runVcpu` returned; taken by the next run. */
  answerVcpu(vcpu: number, data: Uint8Array): void;

  // Whole state, machine not running.
  saveState(): Promise<RawMachineState>;
  /** Gives the number of the machine's life: a new one if it was stopped, or is now. */
  loadState(state: RawMachineState): Promise<number>;
  /**
   * Freezes memory and saves state at one instant, then goes on as before (or stays paused).
   * `pauseUs` is how long the guest stood still.
   */
  freeze(then: 'resume' | 'pause'): Promise<NativeFrozen>;
  /**
   * Any state but closed -> paused at that instant: memory, CPUs, devices. A running vCPU that waits for
   * a JavaScript handler gets its answer first. Gives how often the machine was reset by now, its life:
   * at once when it is done at once.
   */
  reset(
    machine: NativePreparedMachine,
    image: NativeImage,
    clock?: NativeClock,
  ): number | Promise<number>;
  /**
   * The same, leaving nothing behind of what it was: all memory is mapped anew, output that nobody took is
   * dropped, claims are released. On the machine's own thread.
   */
  recycle(machine: NativePreparedMachine, image: NativeImage): Promise<number>;
  /**
   * The same for a machine that was made or recycled for that instant and has stood since: what time has
   * changed goes back.
   */
  renew(machine: NativePreparedMachine, clock?: NativeClock): number | Promise<number>;

  // Devices.
  /**
   * Queues bytes for the guest's serial port, which takes them as its FIFO has room. Returns how many
   * the queue (64 KiB) had room for; the rest is the caller's to offer again.
   */
  serialInput(bytes: Uint8Array): number;
  /** Off: output beyond a small buffer makes the guest wait. */
  setOutputFlow(stream: 0 | 1, flowing: boolean): void;
  claimPorts(base: number, length: number): number;
  claimMmio(gpa: bigint, length: number): number;
  unclaim(claim: number): void;
  /** An answer that comes too late, after a kill or a reset, is dropped. */
  completeExit(vcpu: number, question: number, data: Uint8Array | KvmsnapError | undefined): void;
  /** Raises or lowers a GSI (KVM_IRQ_LINE). */
  setIrqLine(gsi: number, level: boolean): void;
}

/** One run of pages: `length` bytes at `gpa` lie at `offset` of file number `file`. */
export interface NativeExtent {
  file: number;
  gpa: bigint;
  length: number;
  offset: number;
}

export interface NativeImageWrite {
  /** Files to fill, one for each part, opened for writing. `partCount()` says how many. */
  fds: number[];
  /** fdatasync each part before resolving. */
  durable: boolean;
  progress?: (doneBytes: number, totalBytes: number) => void;
}

export interface NativeImageWritten {
  /** One for each part: SHA-256 and length in bytes. */
  parts: { sha256: Uint8Array; size: number }[];
  extents: NativeExtent[];
  /** Pages that became zero; none when the whole image was written. */
  zeros: { gpa: bigint; length: number }[];
  /** CRC-32C (Castagnoli) of each `chunkSize` bytes of each part in turn; a part's last may be short. */
  crc32c: Uint32Array[];
  chunkSize: number;
}

declare const marked: unique symbol;
/** Where an image's bytes come from; opaque. It holds neither memory nor files. */
export interface NativeMark {
  readonly [marked]: true;
}

/** Immutable guest memory. */
export interface NativeImage {
  readonly regions: { gpa: bigint; size: number }[];
  /**
   * To be called before each machine that is made from it. Copies together what lies in very many pieces,
   * in the background; undefined when there is nothing to do, as for the first machine, unless it cannot be
   * mapped without. ERR_SNAPSHOT_CORRUPT when a file was cut short, ERR_ABORTED when cancelled.
   */
  prepare(): { done: Promise<void>; cancel(): void } | undefined;
  /**
   * Compares all of it that lies in files with checksums with those. ERR_SNAPSHOT_CORRUPT names the file
   * and where in it.
   */
  check(): { done: Promise<void>; cancel(): void };
  mark(): NativeMark;
  /** Whether a machine with this image comes from the memory that was marked. */
  isRelatedTo(mark: NativeMark): boolean;
  /**
   * The same image, of which a write stores only pages that differ from every mark. Each is one of the
   * same bytes. Fails with ERR_INVALID_ARGUMENT when none is related, or of other regions.
   */
  changedSince(marks: NativeMark[]): { done: Promise<NativeImage>; cancel(): void };
  /**
   * Bytes of content that a write would store (whole 2 MiB granules with any content). Before
   * `partCount` and `write`, which then need not look for it themselves.
   */
  measure(): { done: Promise<number>; cancel(): void };
  read(gpa: bigint, length: number): Uint8Array;
  /** How many parts of at most `partSize` bytes the content takes. */
  partCount(partSize: number): number;
  write(
    partSize: number,
    options: NativeImageWrite,
  ): { done: Promise<NativeImageWritten>; cancel(): void };
  /** Another handle to the same image, to be closed by itself. */
  share(): NativeImage;
  close(): void;
}

export interface NativeHost {
  apiVersion: number;
  /** KVM_CHECK_EXTENSION by name, for every capability in the addon's table. */
  capabilities: Record<string, number>;
  /** KVM_GET_SUPPORTED_CPUID: `kvm_cpuid_entry2[]`. */
  supportedCpuid: Uint8Array;
  /** Registers of CPUID leaves 0x80000002 to 0x80000004 as this CPU gives them: 48 characters. */
  brand: Uint8Array;
  msrIndices: Uint32Array;
  tscKhz: number;
  /** Bytes of `kvm_run` and of KVM_GET_XSAVE2. */
  vcpuMmapSize: number;
  xsaveSize: number;
}

export interface NativeBinding {
  setup(errorClass: typeof KvmsnapError): void;
  /** Opens /dev/kvm; throws ERR_NO_KVM. */
  host(): NativeHost;
  /** Converts a configuration once, for any number of machines. */
  prepareMachine(config: NativeMachineConfig): NativePreparedMachine;
  /** The state in a prepared machine. */
  preparedState(machine: NativePreparedMachine): RawMachineState;
  /**
   * `image`: memory that the machine starts with, mapped copy-on-write; otherwise zeros. `clock`: of its
   * state; default `keep`. `ERR_STATE`: the state does not say when it was saved.
   */
  createMachine(
    config: NativeMachineConfig | NativePreparedMachine,
    events: NativeEvents,
    image?: NativeImage,
    clock?: NativeClock,
    paging?: NativePaging,
  ): Promise<NativeMachine>;
  /**
   * Dups the fds. Of each extent `extents` has four numbers, gpa, length, offset and file; they must be
   * inside regions and files, and may not overlap. `digests` (`sha256:…`, one
   * for each file) say which files have the same bytes; without them only a file is the same as itself.
   * Those beyond are of files that the image comes from, and has no bytes of any more. `checksums`, one
   * for each file, say what the bytes should be: CRC-32C of each `chunkSize` bytes in turn. What is saved
   * of them later is compared.
   */
  imageFromFiles(
    fds: number[],
    regions: { gpa: bigint; size: number }[],
    extents: Float64Array,
    digests?: string[],
    checksums?: { chunkSize: number; crc32c: Uint32Array }[],
  ): NativeImage;
  /**
   * For a process of ours that hosts a machine, or starts one that does: descriptors from 3 on close when it
   * starts a program, it leaves no core files, and the calling thread and what it starts gain no privileges by
   * set-user-ID programs. `ERR_SYSTEM`.
   */
  sealProcess(): void;
  /** CRC-32C of each `chunkSize` bytes and SHA-256 of a file, on a thread of its own. */
  digestFile(
    fd: number,
    chunkSize: number,
    progress?: (doneBytes: number) => void,
  ): { done: Promise<{ sha256: Uint8Array; crc32c: Uint32Array; size: number }>; cancel(): void };
}
