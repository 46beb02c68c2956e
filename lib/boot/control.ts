/**
 * Bits of the control registers and of EFER (Intel SDM volume 3, 2.5 and 2.2.1), and their values
 * for each way to start a vCPU.
 */
const CR0_PE = 1n << 0n;
const CR0_MP = 1n << 1n;
const CR0_ET = 1n << 4n;
const CR0_NE = 1n << 5n;
const CR0_WP = 1n << 16n;
const CR0_AM = 1n << 18n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const CR4_OSFXSR = 1n << 9n;
const CR4_OSXMMEXCPT = 1n << 10n;
const EFER_SCE = 1n << 0n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;

/** RFLAGS with nothing set but bit 1, which is always one: interrupts off, IOPL 0. */
export const RFLAGS_RESET = 2n;

/** Real mode. Caches on, unlike after a hardware reset. */
export const REAL_CONTROL = { cr0: CR0_ET, cr3: 0n, cr4: 0n, efer: 0n } as const;

/** Protected mode without paging, as the PVH boot ABI asks for. */
export const PVH_CONTROL = { cr0: CR0_PE | CR0_ET, cr3: 0n, cr4: 0n, efer: 0n } as const;

/** Protected mode without paging, x87 and SSE ready for use. */
export const PROTECTED_CONTROL = {
  cr0: CR0_PE | CR0_MP | CR0_ET | CR0_NE,
  cr3: 0n,
  cr4: CR4_OSFXSR | CR4_OSXMMEXCPT,
  efer: 0n,
} as const;

/**
 * Long mode with the page tables at `cr3`, x87 and SSE ready for use, and `syscall` in ring 0. A guest
 * that starts in ring 3 has no kernel that could have said where `syscall` leads, and with it off no
 * way out of its ring.
 */
export const longControl = (cr3: bigint, ring: 0 | 3) => ({
  cr0: CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG,
  cr3,
  cr4: CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
  efer: EFER_LME | EFER_LMA | (ring === 0 ? EFER_SCE : 0n),
});
