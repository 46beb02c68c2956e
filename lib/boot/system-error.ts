import { getSystemErrorName } from 'node:util';
import { KvmsnapError } from '../errors.js';

/** Turns an error of `node:fs` into `ERR_SYSTEM`; others pass. */
export function systemError(error: unknown, doing: string): unknown {
  const { errno, syscall } = error as NodeJS.ErrnoException;
  if (typeof errno !== 'number' || typeof syscall !== 'string') return error;
  return new KvmsnapError('ERR_SYSTEM', `cannot ${doing}: ${getSystemErrorName(errno)}`, {
    cause: error,
    errno: Math.abs(errno),
    syscall,
  });
}
