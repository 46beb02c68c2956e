/** Paths of one of Debian's kernels, unpacked from its package. */
export interface Kernel {
  /** As `uname -r` says it. */
  version: string;
  /** The uncompressed ELF image, with a PVH note. */
  vmlinux: string;
  bzImage: string;
  /** The kernel's build configuration. */
  config: string;
  /** Directory of the modules: `/lib/modules/<version>` of the package. */
  modules: string;
}

export interface Kernels {
  /** The kernel that runs inside QEMU: linux-image-amd64. */
  host: Kernel;
  /** The kernel that kvmsnap boots in tests: linux-image-cloud-amd64. */
  guest: Kernel;
  /** A static busybox. */
  busybox: string;
}

export interface FetchOptions {
  /** Ask apt which kernels are current, even if some are cached. */
  refresh?: boolean;
  /** Gets a line for each slow step. */
  log?: (line: string) => void;
}

/** Fetches what is not in the cache; synchronous, seconds the first time. */
export function ensureKernels(options?: FetchOptions): Kernels;

/** The guest's kernel; inside the emulated host its images lie in memory (KVMSNAP_GUEST_*). */
export function guestKernel(options?: FetchOptions): Kernel;
