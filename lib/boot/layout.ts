/**
 * Where boot data lies in guest memory, as guest physical addresses. Everything below 1 MiB, so that
 * images and kernels have the memory from 1 MiB up to themselves.
 */

/** Real-mode and firmware conventions of the first MiB (IBM PC; ACPI specification 5.2.5.1). */
export const LOW_MEMORY = {
  /** RESET_FLAG of the BIOS data area (0040:0072): a word that says how to reset. */
  resetFlag: 0x472n,
  /** In the data area's part for applications: says that this firmware booted the guest. */
  resetMark: 0x4f0n,
  /** Interrupt vectors and the BIOS data area end here. */
  biosDataEnd: 0x500n,
  /** Extended BIOS data area: RAM ends here for operating systems. */
  ebda: 0x9fc00n,
  /** Video memory and firmware on a PC: never handed out as RAM. */
  hole: 0xa0000n,
  /**
   * The VM generation ID: in a page of its own that is no RAM for operating systems, and not at its
   * start, where they look for the signature of an option ROM.
   */
  generationId: 0xdf028n,
  /** ACPI tables; inside the window that operating systems search for the RSDP. */
  acpi: 0xe0000n,
  acpiEnd: 0xfff80n,
  /** What the reset vector leads to. */
  resetCode: 0xfff80n,
  /** F000:FFF0, where a CPU starts; operating systems jump there to reboot. */
  resetVector: 0xffff0n,
  end: 0x100000n,
} as const;

/** Memory-mapped interrupt controllers: fixed by KVM's in-kernel irqchip. */
export const IOAPIC_BASE = 0xfec00000n;
export const LAPIC_BASE = 0xfee00000n;
/** Both, in large pages. */
export const INTERRUPT_CONTROLLERS = { start: IOAPIC_BASE, end: 0xff000000n } as const;

/** The IOAPIC's last pin: of none of the ISA interrupts, and far from those that devices get first. */
export const GENERATION_ID_GSI = 23;

/** What `planLinux` writes for a kernel below 1 MiB. */
export const LINUX_LAYOUT = {
  gdt: 0x500n,
  /** `hvm_start_info`, its module list and memory map: one page. */
  pvh: 0x6000n,
  /** `boot_params`, "the zero page". */
  zeroPage: 0x7000n,
  /** Top of a small stack; the kernel sets up its own at once. */
  stackTop: 0x8ff0n,
  /** PML4, PDPT and four page directories: identity map of the first 4 GiB. */
  pageTables: 0x9000n,
  commandLine: 0x20000n,
  /** Bytes for the command line with its NUL. */
  commandLineSize: 0x10000,
  /** Linked list of `struct setup_data`. */
  setupData: 0x30000n,
  setupDataSize: 0x10000,
} as const;

/** What `planBare` writes beside the image. */
export const BARE_LAYOUT = {
  /** Flat images are loaded here unless told otherwise. */
  image: 0x1000n,
  /** Initial stack pointer of real mode: SS:SP = 0000:0000 wraps to 0xfffe. */
  realStackTop: 0x10000n,
  /** Initial stack pointer of protected and long mode; the stack grows down. */
  stackTop: 0x80000n,
  gdt: 0x80000n,
  /** 4096 zero bytes, no gate present: the guest fills in what it handles. */
  idt: 0x81000n,
  /** TSS with its I/O permission bitmap: three pages. */
  tss: 0x82000n,
  /** RSP0 (ESP0) of the TSS: stack for what raises the privilege from ring 3 to ring 0. */
  ring0StackTop: 0x86000n,
  /** PML4, PDPT, then one page directory for each mapped GiB. */
  pageTables: 0x86000n,
  /** Tables end here at the latest. */
  end: 0x100000n,
} as const;

/** The least room that a default stack must have between it and an image, in bytes. */
export const BARE_STACK_RESERVE = 4096;
