/**
 * Every `code` that a {@link KvmsnapError} can have, with what it means. Codes are API: they are
 * added to, never renamed.
 */
export const ERROR_CODES = {
  ERR_INVALID_ARGUMENT: 'an argument is of the wrong type, out of range, or contradicts another',
  ERR_STATE: 'the machine is not in a state that allows the call',
  ERR_CLOSED: 'the machine, image or store was closed',
  ERR_POISONED: 'the machine was killed mid-run or failed; reset or drop it',
  ERR_ABORTED: 'the AbortSignal of the call fired',
  ERR_TIMEOUT: 'the call took longer than its timeout',
  ERR_NO_KVM: '/dev/kvm is missing, or may not be opened',
  ERR_KVM_CAPABILITY: 'this KVM lacks a capability that the call needs',
  ERR_IOCTL: 'a KVM ioctl failed; syscall and errno name it',
  ERR_SYSTEM: 'a system call failed; syscall and errno name it',
  ERR_GUEST_ADDRESS: 'a guest address range is not (wholly) inside guest RAM',
  ERR_GUEST_CRASH:
    'the guest did something that ends the machine (KVM internal error, failed entry)',
  ERR_MSR: 'KVM refused to set a model-specific register; the message names it',
  ERR_KERNEL_IMAGE: 'a kernel or program image cannot be loaded',
  ERR_ADDON: 'the native addon could not be loaded',
  ERR_SNAPSHOT_FORMAT: 'a snapshot is malformed, or of a format version this release cannot read',
  ERR_SNAPSHOT_CORRUPT: 'a snapshot blob does not have the size or checksum it should have',
  ERR_SNAPSHOT_MISSING: 'a tag, manifest or blob is not in the store',
  ERR_SNAPSHOT_LIMIT:
    'a snapshot or store would cost more than a limit allows; the message names it and how to raise it',
  ERR_SNAPSHOT_INCOMPATIBLE: 'this host lacks something the snapshot needs; the message lists it',
  ERR_STORE: 'the snapshot store cannot be read or written; nothing was changed',
  ERR_MACHINE_NAME: 'no machine has that name, or another one has it already',
  ERR_CONTROL: 'the process that hosts a named machine cannot be reached, or broke the protocol',
  ERR_PAGE_SOURCE: 'memory that comes on demand could not be had from its source',
  ERR_HANDLER: 'a JavaScript port or MMIO handler threw or returned something unusable',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface KvmsnapErrorOptions extends ErrorOptions {
  /** `errno` of the failed system call, as a positive number. */
  errno?: number;
  /** The failed system call or ioctl, for example `KVM_SET_MSRS`. */
  syscall?: string;
  /** Structured facts beside the message, for programs. */
  details?: unknown;
}

/** The one error class of kvmsnap. `message` says what to do next; `code` is stable. */
export class KvmsnapError extends Error {
  override readonly name = 'KvmsnapError';
  readonly code: ErrorCode;
  readonly errno?: number;
  readonly syscall?: string;
  readonly details?: unknown;

  constructor(code: ErrorCode, message: string, options: KvmsnapErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    if (options.errno !== undefined) this.errno = options.errno;
    if (options.syscall !== undefined) this.syscall = options.syscall;
    if (options.details !== undefined) this.details = options.details;
  }
}

/** A message for whatever a user's function threw. Never throws. */
export function textOf(thrown: unknown): string {
  try {
    return String(thrown instanceof Error ? thrown.message : thrown);
  } catch {
    return 'it threw what has no text';
  }
}

/** Throws `ERR_INVALID_ARGUMENT` unless `condition` holds. */
export function requireArgument(condition: unknown, message: string): asserts condition {
  if (!condition) throw new KvmsnapError('ERR_INVALID_ARGUMENT', message);
}
