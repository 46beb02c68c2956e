import { KvmsnapError, requireArgument } from '../../errors.js';
import { PAGE_SIZE } from '../../units.js';
import { type AcpiDevice, acpiTables } from '../acpi/tables.js';
import { alignDown, alignUp } from '../bytes.js';
import { type ElfImage, isElf, isLoaded, parseElf } from '../elf.js';
import { placeFirmware } from '../firmware.js';
import { firmwareState } from '../firmware-state.js';
import { GENERATION_ID_GSI, LINUX_LAYOUT, LOW_MEMORY } from '../layout.js';
import { identityTables } from '../paging.js';
import { type BootPlan, hexRange, PlanBuilder } from '../plan.js';
import { isBzImage, parseBzImage } from './bzimage.js';
import { memoryMap } from './e820.js';
import { entry64, entryPvh, linuxGdt } from './entry.js';
import { encodeStartInfo, pvhEntry } from './pvh.js';
import { encodeSetupData, encodeZeroPage, type SetupData } from './zeropage.js';

export interface LinuxOptions {
  /** A bzImage, or an uncompressed ELF vmlinux for x86-64. */
  kernel: Uint8Array;
  /** A cpio archive, compressed or not; see `packInitrd`. */
  initrd?: Uint8Array;
  cmdline: string;
  /** Bytes of guest RAM. */
  memory: number;
  /** 1 to 255: the local APIC IDs that an MADT of the first kind can name. */
  vcpus: number;
  /** The ACPI tables describe KVM's in-kernel irqchip, so the machine must have it. */
  irqchip: true;
  /** Devices beside the serial port and the RTC for the DSDT, for example virtio-mmio. */
  devices?: readonly AcpiDevice[];
  /** Describe a VM generation ID at `LOW_MEMORY.generationId`; what it is, is the caller's to write. */
  generationId?: boolean;
  /** Handed over through `boot_params`; refused for a PVH entry, which has none. */
  setupData?: readonly SetupData[];
  /** CPUID 0x80000008, EAX bits 7..0; default 36, the least that any x86-64 CPU has. */
  physicalAddressBits?: number;
  /** How to enter an ELF kernel; `auto` takes PVH if the kernel has its note. Default `auto`. */
  elfEntry?: 'auto' | 'pvh' | '64-bit';
}

/** `COMMAND_LINE_SIZE` of x86 with its NUL: an ELF kernel cuts longer ones off without a word. */
const ELF_COMMAND_LINE_MAX = 2047;
/** `initrd_addr_max` of every x86-64 kernel; an ELF image has no header that says it. */
const ELF_INITRD_ADDRESS_MAX = 0x7fffffffn;
const IDENTITY_GIB = 4;
const LEAST_PHYSICAL_BITS = 36;

/** A kernel that was placed, and what it asks for. */
interface PlacedKernel {
  protocol: '64-bit' | 'pvh';
  entry: bigint;
  /** What it takes, with what it unpacks: [start, end). */
  start: bigint;
  end: bigint;
  setupHeader?: Uint8Array;
  initrdAddressMax: bigint;
  commandLineMax: number;
}

/**
 * Plans a Linux boot: kernel, initrd, command line, memory map, ACPI tables and entry state.
 *
 * A bzImage is entered by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst), an ELF
 * vmlinux by its PVH note, else at its 64-bit entry with `boot_params`.
 *
 * Throws `ERR_KERNEL_IMAGE` for a kernel that is malformed or does not fit into RAM, and
 * `ERR_INVALID_ARGUMENT` where initrd, command line or another option is at fault.
 */
export function planLinux(options: LinuxOptions): BootPlan {
  const { vcpus, memory, cmdline } = options;
  requireArgument(options.irqchip === true, 'Linux guests need irqchip: true');
  requireArgument(
    Number.isInteger(vcpus) && vcpus >= 1 && vcpus <= 255,
    `vcpus must be an integer from 1 to 255, not ${vcpus}`,
  );
  const plan = new PlanBuilder(memory);
  // Nothing else is in page zero's beginning: kernels treat a table at address 0 as absent.
  placeFirmware(plan);
  const { generationId } = LOW_MEMORY;
  if (options.generationId) plan.claim('the VM generation ID', generationId, 16n);
  const acpi = acpiTables({
    base: LOW_MEMORY.acpi,
    vcpus,
    devices: options.devices ?? [],
    ...(options.generationId
      ? { generationId: { gpa: generationId, gsi: GENERATION_ID_GSI } }
      : {}),
  });
  if (BigInt(acpi.bytes.length) > LOW_MEMORY.acpiEnd - LOW_MEMORY.acpi) {
    throw new KvmsnapError(
      'ERR_INVALID_ARGUMENT',
      'the ACPI tables do not fit below the reset vector; give the machine fewer devices',
    );
  }
  plan.write('the ACPI tables', LOW_MEMORY.acpi, acpi.bytes);

  const kernel = placeKernel(plan, options);
  const commandLine = encodeCommandLine(cmdline, kernel.commandLineMax);
  plan.write('the command line', LINUX_LAYOUT.commandLine, commandLine);
  const initrd = placeInitrd(plan, kernel, options.initrd);
  const common = {
    memoryMap: memoryMap(plan.ram),
    commandLine: LINUX_LAYOUT.commandLine,
    rsdp: acpi.rsdp,
    ...(initrd ? { initrd } : {}),
  };

  const firmware = firmwareState(options.physicalAddressBits ?? LEAST_PHYSICAL_BITS);
  if (kernel.protocol === 'pvh') {
    requireArgument(
      !options.setupData?.length,
      "setupData needs boot_params, which a PVH entry has not; use elfEntry: '64-bit'",
    );
    plan.write('hvm_start_info', LINUX_LAYOUT.pvh, encodeStartInfo(common, LINUX_LAYOUT.pvh));
    return plan.finish(entryPvh(kernel.entry), firmware);
  }
  const setupData = placeSetupData(plan, options.setupData ?? []);
  const { setupHeader } = kernel;
  const zeroPage = { ...common, setupData, ...(setupHeader ? { setupHeader } : {}) };
  plan.write('the GDT', LINUX_LAYOUT.gdt, linuxGdt());
  plan.write('the zero page', LINUX_LAYOUT.zeroPage, encodeZeroPage(zeroPage));
  const tables = identityTables(LINUX_LAYOUT.pageTables, IDENTITY_GIB, { user: false });
  plan.write('the page tables', LINUX_LAYOUT.pageTables, tables);
  return plan.finish(entry64(kernel.entry), firmware);
}

function placeKernel(plan: PlanBuilder, options: LinuxOptions): PlacedKernel {
  const image = options.kernel;
  if (isElf(image)) return placeElf(plan, parseElf(image), options.elfEntry ?? 'auto');
  if (isBzImage(image)) return placeBzImage(plan, image);
  throw new KvmsnapError(
    'ERR_KERNEL_IMAGE',
    'the kernel is neither a bzImage nor an ELF vmlinux; decompress it if it is a .gz, .xz or .zst',
  );
}

function placeBzImage(plan: PlanBuilder, image: Uint8Array): PlacedKernel {
  const kernel = parseBzImage(image);
  const { loadAddress, payload } = kernel;
  const length = BigInt(payload.length);
  const used = kernel.initSize > length ? kernel.initSize : length;
  plan.claim('the kernel with what it unpacks', loadAddress, used, 'ERR_KERNEL_IMAGE');
  requireMapped(loadAddress + used);
  plan.fill(loadAddress, payload);
  return { ...kernel, protocol: '64-bit', start: loadAddress, end: loadAddress + used };
}

function placeElf(
  plan: PlanBuilder,
  image: ElfImage,
  wanted: 'auto' | 'pvh' | '64-bit',
): PlacedKernel {
  if (image.bits !== 64) {
    throw new KvmsnapError('ERR_KERNEL_IMAGE', 'vmlinux is a 32-bit kernel; x86-64 is needed');
  }
  const pvh = wanted === '64-bit' ? undefined : pvhEntry(image);
  if (wanted === 'pvh' && pvh === undefined) {
    throw new KvmsnapError(
      'ERR_KERNEL_IMAGE',
      "vmlinux has no PVH note (CONFIG_PVH); use elfEntry: '64-bit'",
    );
  }
  if (pvh === undefined && !isLoaded(image, image.entry)) {
    throw new KvmsnapError(
      'ERR_KERNEL_IMAGE',
      `vmlinux: its entry 0x${image.entry.toString(16)} is not in what it loads`,
    );
  }
  let start = image.segments[0]!.gpa;
  let end = 0n;
  for (const { gpa, data, memorySize } of image.segments) {
    if (gpa < LOW_MEMORY.end) {
      throw new KvmsnapError(
        'ERR_KERNEL_IMAGE',
        `vmlinux has a segment at ${hexRange(gpa, gpa + memorySize)}, below 1 MiB, which is taken`,
      );
    }
    plan.claim('a kernel segment', gpa, memorySize, 'ERR_KERNEL_IMAGE');
    plan.fill(gpa, data);
    start = lower(start, gpa);
    if (gpa + memorySize > end) end = gpa + memorySize;
  }
  requireMapped(end);
  return {
    protocol: pvh === undefined ? '64-bit' : 'pvh',
    entry: pvh ?? image.entry,
    start,
    end,
    initrdAddressMax: ELF_INITRD_ADDRESS_MAX,
    commandLineMax: ELF_COMMAND_LINE_MAX,
  };
}

/** A kernel starts with the first 4 GiB mapped, or with 32-bit addresses. */
function requireMapped(end: bigint): void {
  if (end > BigInt(IDENTITY_GIB) << 30n) {
    throw new KvmsnapError('ERR_KERNEL_IMAGE', 'the kernel asks to be loaded above 4 GiB');
  }
}

function encodeCommandLine(cmdline: string, max: number): Uint8Array {
  const bytes = new TextEncoder().encode(cmdline);
  const limit = Math.min(max, LINUX_LAYOUT.commandLineSize - 1);
  requireArgument(!bytes.includes(0), 'cmdline must not contain a NUL character');
  requireArgument(
    bytes.length <= limit,
    `cmdline has ${bytes.length} bytes; this kernel takes at most ${limit}`,
  );
  const terminated = new Uint8Array(bytes.length + 1);
  terminated.set(bytes);
  return terminated;
}

/**
 * As high as the kernel allows, page aligned: far from where it unpacks and allocates. Where there is no
 * room above the kernel, below it, from 1 MiB on.
 */
function placeInitrd(
  plan: PlanBuilder,
  kernel: PlacedKernel,
  initrd: Uint8Array | undefined,
): { gpa: bigint; size: number } | undefined {
  if (!initrd || initrd.length === 0) return undefined;
  const page = BigInt(PAGE_SIZE);
  const size = BigInt(initrd.length);
  const top = lower(kernel.initrdAddressMax + 1n, plan.ram[0]!.end);
  const rooms = [
    { name: 'above', bottom: alignUp(kernel.end, page), top },
    { name: 'below', bottom: LOW_MEMORY.end, top: lower(kernel.start, top) },
  ];
  // Both bottoms are multiples of a page.
  const room = rooms.find(({ bottom, top }) => top - size >= bottom);
  if (room === undefined) {
    const sizes = rooms.map(
      ({ name, bottom, top }) => `${top > bottom ? top - bottom : 0n} ${name}`,
    );
    throw new KvmsnapError(
      'ERR_INVALID_ARGUMENT',
      `the initrd has ${size} bytes, and there are ${sizes.join(' the kernel and ')} it, up to ` +
        `0x${top.toString(16)}: give the machine more memory or make the initrd smaller`,
    );
  }
  const gpa = alignDown(room.top - size, page);
  plan.write('the initrd', gpa, initrd);
  return { gpa, size: initrd.length };
}

const lower = (a: bigint, b: bigint): bigint => (a < b ? a : b);

function placeSetupData(plan: PlanBuilder, nodes: readonly SetupData[]): bigint {
  if (nodes.length === 0) return 0n;
  const bytes = encodeSetupData(nodes, LINUX_LAYOUT.setupData);
  requireArgument(
    bytes.length <= LINUX_LAYOUT.setupDataSize,
    `setupData takes ${bytes.length} bytes; at most ${LINUX_LAYOUT.setupDataSize} fit`,
  );
  plan.write('setup_data', LINUX_LAYOUT.setupData, bytes);
  return LINUX_LAYOUT.setupData;
}
