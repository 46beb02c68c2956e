/** The ELF vmlinux inside a bzImage. */
export function carveVmlinux(bzImage: Buffer): Buffer;
