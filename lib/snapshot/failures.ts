/** How this room fails: one function for each code, so that messages and fields stay alike. */
import { constants } from 'node:os';
import type { z } from 'zod';
import { KvmsnapError } from '../errors.js';
import type { Steps } from './steps.js';

/** `ERR_SNAPSHOT_FORMAT`: `what` names the blob or file. */
export function formatError(what: string, problem: string, cause?: unknown): KvmsnapError {
  return new KvmsnapError(
    'ERR_SNAPSHOT_FORMAT',
    `${what}: ${problem}. The snapshot was not made by kvmsnap, or is damaged: take it again, ` +
      'or copy it again from where it came from.',
    cause === undefined ? {} : { cause },
  );
}

/** `ERR_SNAPSHOT_FORMAT` for a version from the future. */
export function versionError(what: string, found: number, known: number): KvmsnapError {
  return new KvmsnapError(
    'ERR_SNAPSHOT_FORMAT',
    `${what} has format version ${found}; this release reads up to ${known}. ` +
      'Upgrade kvmsnap to read it.',
    { details: { what, found, known } },
  );
}

/** `ERR_SNAPSHOT_CORRUPT`. */
export function corruptError(what: string, problem: string, details?: unknown): KvmsnapError {
  return new KvmsnapError(
    'ERR_SNAPSHOT_CORRUPT',
    `${what}: ${problem}. Copy the blob again from where it came from, or take the snapshot again.`,
    details === undefined ? {} : { details },
  );
}

/** `ERR_SNAPSHOT_MISSING`. */
export function missingError(message: string, cause?: unknown): KvmsnapError {
  return new KvmsnapError('ERR_SNAPSHOT_MISSING', message, cause === undefined ? {} : { cause });
}

const ADVICE: Record<string, string> = {
  ENOSPC: 'The file system is full: free space, or use a store elsewhere.',
  EDQUOT: 'The disk quota is used up: free space, or use a store elsewhere.',
  EROFS: 'The file system is mounted read-only: use a store elsewhere.',
  EACCES: 'Permission is denied: check owner and mode of the store, or use another.',
  EPERM: 'Permission is denied: check owner, mode and attributes of the store, or use another.',
  EMFILE: 'Too many files are open: raise the limit (ulimit -n) or close machines and snapshots.',
  ENFILE: 'The system has too many open files: raise fs.file-max or close some.',
  ENOENT: 'Check the path; a new store needs `create: true`.',
  ENOTDIR: 'Check the path: a store is a directory.',
  EIO: 'The disk reports an error: check the kernel log.',
};

/**
 * `ERR_STORE` from a failed file system call, of Node's or of the addon's (`ERR_SYSTEM`). Other
 * `KvmsnapError`s pass as they are.
 */
export function storeError(doing: string, cause: unknown): KvmsnapError {
  const isNative = cause instanceof KvmsnapError && cause.code === 'ERR_SYSTEM';
  if (cause instanceof KvmsnapError && !isNative) return cause;
  const system = cause as NodeJS.ErrnoException;
  const code = isNative ? errnoName(system.errno) : system?.code;
  const reason = code ?? (cause instanceof Error ? cause.message : String(cause));
  return new KvmsnapError(
    'ERR_STORE',
    `${doing} failed: ${reason}. ${(code && ADVICE[code]) || 'The store is as it was before.'}`,
    {
      cause,
      ...(typeof system?.errno === 'number' ? { errno: Math.abs(system.errno) } : {}),
      ...(typeof system?.syscall === 'string' ? { syscall: system.syscall } : {}),
    },
  );
}

/** `ENOSPC` for 28. */
function errnoName(errno: number | undefined): string | undefined {
  return Object.entries(constants.errno).find(([, value]) => value === errno)?.[0];
}

export function errnoCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code;
}

/** Checks each of a list, in steps. `what` names the list. */
export function* checkEach<T extends z.ZodType>(
  schema: T,
  values: readonly unknown[],
  what: string,
): Steps<z.infer<T>[]> {
  const checked: z.infer<T>[] = [];
  for (const [i, value] of values.entries()) {
    checked.push(checkShape(schema, value, `${what}.${i}`));
    // One may have as many annotations as an object may have keys.
    if (i % 16 === 0) yield;
  }
  return checked;
}

/** Checks `value` against `schema`; the first problem becomes `ERR_SNAPSHOT_FORMAT`. */
export function checkShape<T extends z.ZodType>(
  schema: T,
  value: unknown,
  what: string,
): z.infer<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.map(String).join('.') ?? '';
  throw formatError(what, `${path ? `${path}: ` : ''}${issue?.message ?? 'wrong shape'}`);
}
