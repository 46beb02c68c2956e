/** `n` kibibytes as a number of bytes. */
export const KiB = (n: number): number => n * 1024;
/** `n` mebibytes as a number of bytes. */
export const MiB = (n: number): number => n * 1024 ** 2;
/** `n` gibibytes as a number of bytes. */
export const GiB = (n: number): number => n * 1024 ** 3;

/** The x86 base page, in bytes. */
export const PAGE_SIZE = 4096;
/** Where RAM of a larger machine is interrupted for MMIO, LAPIC and IOAPIC: [3 GiB, 4 GiB). */
export const HOLE_START = GiB(3);
export const HOLE_END = GiB(4);
