/** Text, bytes, a file of this machine, or bytes with a mode. */
export type GuestFile =
  | string
  | Uint8Array
  | { path: string; mode?: number }
  | { data: string | Uint8Array; mode?: number };

export interface GuestInitrdOptions {
  /** Text of the /init script, from its `#!` line on. It runs as PID 1. */
  init: string;
  /** Guest path -> content. */
  files?: Record<string, GuestFile>;
  /** Modules of the guest kernel; what they need is added. `/bin/load-modules` loads them all. */
  modules?: string[];
  /** Compress with gzip (default false). */
  gzip?: boolean;
}

/** An initrd with busybox, an /init script, files and modules, as bytes. */
export function buildGuestInitrd(options: GuestInitrdOptions): Buffer;
