import { type ErrorCode, KvmsnapError, requireArgument } from '../../errors.js';
import { isElf, isLoaded, parseElf } from '../elf.js';
import { BARE_LAYOUT, BARE_STACK_RESERVE, INTERRUPT_CONTROLLERS } from '../layout.js';
import { identityTables } from '../paging.js';
import { type BootPlan, PlanBuilder } from '../plan.js';
import { inRam } from '../ram.js';
import { BARE_SELECTORS, bareGdt, entryFlat, entryReal } from './entry.js';
import { encodeTss, type PortPermission } from './tss.js';

export interface BareOptions {
  /** An ELF executable at fixed addresses, or a flat binary. */
  image: Uint8Array;
  /** `auto` (default): ELF if the image starts with the ELF magic, else flat. */
  format?: 'auto' | 'elf' | 'flat';
  mode: 'real' | 'protected' | 'long';
  /** Privilege to start with; real mode has none but 0. */
  ring: 0 | 3;
  /** Where a flat image goes; default 0x1000. An ELF image says it itself. */
  loadAddress?: bigint;
  /** First instruction; default the ELF entry, or the first byte of a flat image. */
  entry?: bigint;
  /** Initial stack pointer; default 0x80000, in real mode 0x10000. */
  stack?: bigint;
  /** Bytes of guest RAM. */
  memory: number;
  /** Ports that ring 3 may use, by the TSS bitmap; default `all`, which IOPL 3 says too. */
  tssPorts?: PortPermission;
}

const GIB = 1n << 30n;
const TABLE_BYTES = 4096n;
/** MMIO and interrupt controllers lie below 4 GiB, so that much is mapped whatever the RAM. */
const MIN_MAPPED_GIB = 4n;

/** First address behind what a vCPU of each mode can name. */
const ADDRESS_LIMIT = { real: 0x100000n, protected: 1n << 32n, long: 1n << 52n } as const;

/**
 * Plans a bare guest: its image, descriptor tables, page tables and entry state.
 *
 * It starts with interrupts off, IOPL 0 (3 in ring 3 with all ports), an IDT without gates, all-zero memory beside the image, and
 * RDI (EDI) = bytes of guest RAM. In long mode [0, 4 GiB) and all RAM are mapped to themselves,
 * writable and open to ring 3, but for the IOAPIC and the LAPIC when it starts there. Where tables lie: `BARE_LAYOUT`.
 *
 * Throws `ERR_KERNEL_IMAGE` for an ELF image that is malformed or does not fit, and
 * `ERR_INVALID_ARGUMENT` where an option is at fault.
 */
export function planBare(options: BareOptions): BootPlan {
  const { mode, ring, memory } = options;
  requireArgument(
    mode === 'real' || mode === 'protected' || mode === 'long',
    `mode must be real, protected or long, not ${mode}`,
  );
  requireArgument(ring === 0 || ring === 3, `ring must be 0 or 3, not ${ring}`);
  requireArgument(
    mode !== 'real' || ring === 0,
    'real mode has no privilege rings: use ring 0, or protected or long mode',
  );
  for (const field of ['loadAddress', 'entry', 'stack'] as const) {
    const value = options[field];
    requireArgument(
      value === undefined || (typeof value === 'bigint' && value >= 0n),
      `${field} must be a guest address: a bigint of at least 0n`,
    );
  }
  const plan = new PlanBuilder(memory);
  if (mode !== 'real') {
    placeTables(plan, mode === 'long' ? 64 : 32, ring, options.tssPorts ?? 'all');
  }
  const stack = placeStack(plan, options);
  const entry = placeImage(plan, options);
  const at = { entry, stack, memory };
  if (mode === 'real') return plan.finish(entryReal(at));
  const allPorts = (options.tssPorts ?? 'all') === 'all';
  return plan.finish(entryFlat(mode === 'long' ? 64 : 32, ring, allPorts, at));
}

function placeTables(plan: PlanBuilder, bits: 32 | 64, ring: 0 | 3, ports: PortPermission): void {
  const { gdt, idt, tss, ring0StackTop, pageTables, end } = BARE_LAYOUT;
  plan.write('the GDT', gdt, bareGdt(bits));
  plan.claim('the IDT', idt, TABLE_BYTES);
  plan.write('the TSS', tss, encodeTss(bits, ring0StackTop, BARE_SELECTORS.data0, ports));
  plan.claim('the ring 0 stack', ring0StackTop - TABLE_BYTES, TABLE_BYTES);
  if (bits === 32) return;
  const top = plan.ram.at(-1)!.end;
  const needed = (top + GIB - 1n) / GIB;
  const gib = needed > MIN_MAPPED_GIB ? needed : MIN_MAPPED_GIB;
  const most = (end - pageTables) / TABLE_BYTES - 2n;
  requireArgument(
    gib <= most,
    `a bare long-mode guest has room for page tables up to ${most} GiB; ${gib} GiB are asked for`,
  );
  // A guest that starts in ring 3 could make its own vCPU enter SMM or INIT through the LAPIC.
  const access = { user: true, ...(ring === 3 && { reserved: INTERRUPT_CONTROLLERS }) };
  plan.write('the page tables', pageTables, identityTables(pageTables, Number(gib), access));
}

function placeStack(plan: PlanBuilder, { mode, stack }: BareOptions): bigint {
  if (stack === undefined) {
    const top = mode === 'real' ? BARE_LAYOUT.realStackTop : BARE_LAYOUT.stackTop;
    const reserve = BigInt(BARE_STACK_RESERVE);
    plan.claim('the default stack (set `stack` to move it)', top - reserve, reserve);
    return top;
  }
  requireArgument(
    stack > 0n && stack <= ADDRESS_LIMIT[mode] && inRam(plan.ram, stack - 1n, stack),
    `stack 0x${stack.toString(16)} does not end inside RAM that ${mode} mode can address`,
  );
  return stack;
}

/** Returns the entry point. */
function placeImage(plan: PlanBuilder, options: BareOptions): bigint {
  const { image, mode } = options;
  const format = options.format ?? 'auto';
  requireArgument(
    format === 'auto' || format === 'elf' || format === 'flat',
    `format must be auto, elf or flat, not ${format}`,
  );
  const asElf = format === 'elf' || (format === 'auto' && isElf(image));
  const entry = asElf ? placeElf(plan, options) : placeFlat(plan, options);
  const code: ErrorCode =
    options.entry === undefined && asElf ? 'ERR_KERNEL_IMAGE' : 'ERR_INVALID_ARGUMENT';
  if (entry >= ADDRESS_LIMIT[mode] || !inRam(plan.ram, entry, entry + 1n)) {
    throw new KvmsnapError(
      code,
      `the entry 0x${entry.toString(16)} is not in RAM that ${mode} mode can address`,
    );
  }
  return entry;
}

function placeFlat(plan: PlanBuilder, options: BareOptions): bigint {
  const { image } = options;
  const at = options.loadAddress ?? BARE_LAYOUT.image;
  if (image.length === 0) throw new KvmsnapError('ERR_KERNEL_IMAGE', 'the image is empty');
  plan.write('the image', at, image);
  return options.entry ?? at;
}

function placeElf(plan: PlanBuilder, options: BareOptions): bigint {
  const { mode } = options;
  requireArgument(mode !== 'real', 'real mode takes a flat binary: use objcopy -O binary');
  requireArgument(
    options.loadAddress === undefined,
    'loadAddress is for flat images; link the ELF image at the address it shall have',
  );
  const elf = parseElf(options.image);
  if (mode === 'long' && elf.bits !== 64) {
    throw new KvmsnapError(
      'ERR_KERNEL_IMAGE',
      'the image is a 32-bit ELF file: use protected mode, or build it for x86-64',
    );
  }
  for (const { gpa, data, memorySize } of elf.segments) {
    plan.claim('an ELF segment', gpa, memorySize, 'ERR_KERNEL_IMAGE');
    plan.fill(gpa, data);
  }
  if (options.entry !== undefined) return options.entry;
  if (!isLoaded(elf, elf.entry)) {
    throw new KvmsnapError(
      'ERR_KERNEL_IMAGE',
      `the ELF entry 0x${elf.entry.toString(16)} is not in what the image loads; link it with ` +
        'physical addresses, or set `entry`',
    );
  }
  return elf.entry;
}
