/** Exit codes of the command line; docs/cli.md lists them for users. */
import { constants } from 'node:os';
import { type ErrorCode, KvmsnapError } from '../errors.js';

export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  noKvm: 3,
  refused: 4,
} as const;

const BY_CODE: Partial<Record<ErrorCode, number>> = {
  ERR_INVALID_ARGUMENT: EXIT.usage,
  ERR_NO_KVM: EXIT.noKvm,
  ERR_SNAPSHOT_FORMAT: EXIT.refused,
  ERR_SNAPSHOT_CORRUPT: EXIT.refused,
  ERR_SNAPSHOT_MISSING: EXIT.refused,
  ERR_SNAPSHOT_INCOMPATIBLE: EXIT.refused,
  ERR_SNAPSHOT_LIMIT: EXIT.refused,
};

/** What the shell gives for a process that a signal ended: 128 and the signal's number. */
export const signalExitCode = (signal: NodeJS.Signals): number => 128 + constants.signals[signal];

export function exitCodeOf(error: unknown): number {
  return (error instanceof KvmsnapError && BY_CODE[error.code]) || EXIT.failure;
}
