/** What `Vm.create` takes, checked and with defaults filled in. */
import {
  type BareOptions,
  type BootPlan,
  GENERATION_ID_GSI,
  inRam,
  type LinuxOptions,
  LOW_MEMORY,
  planBare,
  planLinux,
  ramRanges,
  readInitrd,
  readKernelFile,
} from '../boot/index.js';
import { guestCpuids } from '../cpu/cpuid.js';
import { decodeCpuid, leafRegister } from '../cpu/cpuid-entries.js';
import type { CpuTemplate } from '../cpu/template.js';
import { requireArgument } from '../errors.js';
import { capability, kvmHost } from '../host/host.js';
import type { NativeDevices, NativeMachineConfig } from '../native/binding.js';
import { HOLE_END, MiB, PAGE_SIZE } from '../units.js';
import { GENERATION_ID_SIZE, type GenerationIdPlace } from './identity.js';

/** Which native devices a machine has. All but `exitPort` default to true. */
export interface DeviceOptions {
  /** 16550A at 0x3F8, IRQ 4. */
  serial?: boolean;
  /** i8042 at 0x60 and 0x64, for the reset that guests make by it. */
  i8042?: boolean;
  /** Port 0xE9: bytes for {@link Vm.debug}. */
  debugPort?: boolean;
  /** Port whose written value ends the machine, as its exit code. Default 0xF4; 0: none. */
  exitPort?: number;
  /** MC146818 clock at 0x70 and 0x71. */
  cmos?: boolean;
  /** ACPI sleep registers at 0x600, by which Linux powers off, and its reset register at 0xCF9. */
  acpiPower?: boolean;
}

/** Kernel, initrd and command line of a Linux guest. */
export interface LinuxGuest extends Pick<LinuxOptions, 'setupData' | 'elfEntry'> {
  /** bzImage or ELF vmlinux: a path, or its bytes. */
  kernel: string | Uint8Array;
  /** A cpio archive, or a directory to pack as one: a path, or the archive's bytes. */
  initrd?: string | Uint8Array;
  /** Default `console=ttyS0 panic=-1 reboot=k`. */
  cmdline?: string;
}

/** A guest without an operating system: an ELF64 or flat binary. */
export interface BareGuest extends Omit<BareOptions, 'memory' | 'image'> {
  /** A path, or the bytes. */
  image: string | Uint8Array;
}

export interface VmOptions extends Partial<LinuxGuest> {
  /** A bare guest instead of `kernel`. With neither, memory is zeros and registers are yours. */
  bare?: BareGuest;
  /** Number of vCPUs; default 1. */
  vcpus?: number;
  /** Bytes of RAM, a multiple of 4096; default 128 MiB. What is beyond 3 GiB lies above 4 GiB. */
  memory?: number;
  /**
   * In-kernel PIC, IOAPIC, LAPIC and PIT; default true. Linux and interrupts need it. Without it a
   * machine is made and closed faster.
   */
  irqchip?: boolean;
  devices?: DeviceOptions;
  /**
   * A VM generation ID: 16 random bytes that become others in a machine made from a snapshot of this one,
   * so that the guest can tell that it is a clone; see {@link IdentityOptions}. Linux guests have it by
   * default, through ACPI; it needs `CONFIG_VMGENID`. Others have it where you say. Default: true with
   * `kernel`, else none.
   */
  generationId?: boolean | GenerationIdPlace;
  /** Narrows the guest's CPUID, so that its snapshots can move to lesser hosts. */
  cpuTemplate?: CpuTemplate;
  /** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2; default false. See {@link VmMemory.clearDirtyLog}. */
  manualDirtyLog?: boolean;
  /**
   * Entries of each vCPU's dirty ring, a power of two from 1024 (some hosts: 256) to 65536, for the
   * tracker `ring`. It takes the place of the slots' dirty logs. Default: none.
   */
  dirtyRing?: number;
  /** Aborts the creation; the machine does not exist then. */
  signal?: AbortSignal;
}

/** A checked machine: what the addon makes, and what goes into it before it starts. */
export interface MachinePlan {
  config: NativeMachineConfig;
  boot?: BootPlan;
  generationId?: GenerationIdPlace;
}

export const DEFAULT_CMDLINE = 'console=ttyS0 panic=-1 reboot=k';
const DEFAULT_MEMORY = MiB(128);
const DEFAULT_EXIT_PORT = 0xf4;

/** `ERR_INVALID_ARGUMENT`, `ERR_KERNEL_IMAGE`, `ERR_NO_KVM`, `ERR_KVM_CAPABILITY`. */
export async function planMachine(options: VmOptions): Promise<MachinePlan> {
  const { vcpus = 1, memory = DEFAULT_MEMORY, irqchip = true } = options;
  checkSizes(vcpus, memory);
  const devices = devicesOf(options.devices ?? {});
  const host = kvmHost();
  const config: NativeMachineConfig = {
    regions: ramRegions(memory),
    irqchip,
    ...dirtyLogOf(options),
    devices,
    cpuid: guestCpuids({
      supported: host.supportedCpuid,
      vcpus,
      irqchip,
      tscDeadlineTimer: irqchip && capability('KVM_CAP_TSC_DEADLINE_TIMER') > 0,
      brand: host.brand,
      ...(options.cpuTemplate ? { template: options.cpuTemplate } : {}),
    }),
  };
  const generationId = generationIdOf(options, memory, irqchip);
  const boot = await planBoot(options, {
    vcpus,
    memory,
    irqchip,
    generationId: !!generationId,
    physicalAddressBits: physicalAddressBits(config.cpuid[0]!),
  });
  if (boot && generationId) requireFree(boot, generationId);
  return { config, ...(boot ? { boot } : {}), ...(generationId ? { generationId } : {}) };
}

/** `ERR_INVALID_ARGUMENT`. */
function generationIdOf(
  { kernel, generationId = kernel !== undefined }: VmOptions,
  memory: number,
  irqchip: boolean,
): GenerationIdPlace | undefined {
  if (generationId === false) return undefined;
  if (kernel !== undefined) {
    requireArgument(
      generationId === true,
      'a Linux guest finds its VM generation ID through ACPI: generationId is true or false',
    );
    return { gpa: LOW_MEMORY.generationId, gsi: GENERATION_ID_GSI };
  }
  requireArgument(
    typeof generationId === 'object' && typeof generationId.gpa === 'bigint',
    'generationId says where a guest without ACPI finds it: { gpa: 0x9000n }',
  );
  const { gpa, gsi } = generationId;
  requireArgument(
    gpa % 8n === 0n && inRam(ramRanges(memory), gpa, gpa + BigInt(GENERATION_ID_SIZE)),
    'generationId.gpa is a multiple of 8 with 16 bytes of RAM there',
  );
  requireArgument(
    gsi === undefined || (irqchip && Number.isInteger(gsi) && gsi >= 0 && gsi < 24),
    'generationId.gsi is an input of the irqchip, 0 to 23: leave it out, or irqchip true',
  );
  return gsi === undefined ? { gpa } : { gpa, gsi };
}

function requireFree({ writes }: BootPlan, { gpa }: GenerationIdPlace): void {
  const end = gpa + BigInt(GENERATION_ID_SIZE);
  requireArgument(
    writes.every((write) => write.gpa + BigInt(write.data.length) <= gpa || end <= write.gpa),
    'generationId.gpa lies in what is loaded for the guest; put it elsewhere',
  );
}

function checkSizes(vcpus: number, memory: number): void {
  const most = capability('KVM_CAP_MAX_VCPUS') || 255;
  requireArgument(
    Number.isInteger(vcpus) && vcpus >= 1 && vcpus <= Math.min(most, 255),
    `vcpus must be 1 to ${Math.min(most, 255)}`,
  );
  requireArgument(
    Number.isSafeInteger(memory) && memory >= PAGE_SIZE && memory % PAGE_SIZE === 0,
    `memory must be a number of bytes, a multiple of ${PAGE_SIZE}: try MiB(128)`,
  );
}

function devicesOf(options: DeviceOptions): NativeDevices {
  const {
    serial = true,
    i8042 = true,
    debugPort = true,
    exitPort = DEFAULT_EXIT_PORT,
    cmos = true,
    acpiPower = true,
  } = options;
  requireArgument(
    Number.isInteger(exitPort) && exitPort >= 0 && exitPort <= 0xffff,
    'devices.exitPort must be a port, or 0 for none',
  );
  return { serial, i8042, debugPort, exitPort, cmos, acpiPower };
}

/** How a machine logs dirty pages. `ERR_INVALID_ARGUMENT`. */
export function dirtyLogOf({
  manualDirtyLog = false,
  dirtyRing,
}: Pick<VmOptions, 'manualDirtyLog' | 'dirtyRing'>): Pick<
  NativeMachineConfig,
  'manualDirtyLog' | 'dirtyRing'
> {
  if (dirtyRing === undefined) return { manualDirtyLog };
  requireArgument(
    !manualDirtyLog,
    'manualDirtyLog and dirtyRing exclude each other: a machine with a ring has no dirty logs',
  );
  requireArgument(
    Number.isInteger(dirtyRing) && dirtyRing > 0 && dirtyRing < 2 ** 31,
    'dirtyRing is a number of entries: try 4096',
  );
  return { manualDirtyLog, dirtyRing };
}

/** Slot 0 below the 32-bit hole, slot 1 from 4 GiB on. */
function ramRegions(memory: number): NativeMachineConfig['regions'] {
  return ramRanges(memory).map(({ start, end }) => ({
    slot: start >= BigInt(HOLE_END) ? 1 : 0,
    gpa: start,
    size: Number(end - start),
    flags: 0,
  }));
}

/** Of a guest with this CPUID; 36 where the leaf is missing (Intel SDM volume 2, CPUID). */
const physicalAddressBits = (cpuid: Uint8Array): number =>
  leafRegister(decodeCpuid(cpuid), 0x80000008, 0, 'eax') & 0xff || 36;

async function planBoot(
  options: VmOptions,
  machine: {
    vcpus: number;
    memory: number;
    irqchip: boolean;
    generationId: boolean;
    physicalAddressBits: number;
  },
): Promise<BootPlan | undefined> {
  const { kernel, bare } = options;
  requireArgument(
    kernel === undefined || bare === undefined,
    'kernel and bare exclude each other: a machine has one guest',
  );
  if (bare !== undefined) {
    const image = await bytesOf(bare.image, readKernelFile);
    return planBare({ ...bare, image, memory: machine.memory });
  }
  if (kernel === undefined) {
    requireArgument(
      options.initrd === undefined && options.cmdline === undefined,
      'initrd and cmdline go with a kernel',
    );
    return undefined;
  }
  requireArgument(machine.irqchip, 'Linux needs interrupt controllers: leave irqchip true');
  const { initrd, cmdline = DEFAULT_CMDLINE, setupData, elfEntry } = options;
  return planLinux({
    kernel: await bytesOf(kernel, readKernelFile),
    ...(initrd === undefined ? {} : { initrd: await bytesOf(initrd, readInitrd) }),
    cmdline,
    memory: machine.memory,
    vcpus: machine.vcpus,
    irqchip: true,
    generationId: machine.generationId,
    physicalAddressBits: machine.physicalAddressBits,
    ...(setupData ? { setupData } : {}),
    ...(elfEntry ? { elfEntry } : {}),
  });
}

async function bytesOf(
  source: string | Uint8Array,
  read: (path: string) => Promise<Uint8Array>,
): Promise<Uint8Array> {
  return typeof source === 'string' ? read(source) : source;
}
