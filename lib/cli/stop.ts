/** Why a machine ended, as processes tell each other, people read it, and shells get it. */
import { z } from 'zod';
import type { StopInfo } from '../vm/vm.js';
import { EXIT, signalExitCode } from './exit-codes.js';

export const stopSchema = z.object({
  /** `closed`: by whoever ran it, through `kvmsnap stop` or `snapshot --then stop`. */
  reason: z.enum([
    'exit-port',
    'reset',
    'shutdown',
    'power-off',
    'halt',
    'killed',
    'error',
    'closed',
  ]),
  /** What the guest wrote to the exit port. */
  code: z.int().min(0).max(255).optional(),
  error: z.object({ code: z.string().max(64), message: z.string().max(8192) }).optional(),
});
export type Stop = z.infer<typeof stopSchema>;

export function describeStop({ reason, code, error }: StopInfo): Stop {
  return {
    reason,
    ...(code === undefined ? {} : { code }),
    ...(error === undefined
      ? {}
      : { error: { code: error.code, message: error.message.slice(0, 8192) } }),
  };
}

/**
 * The exit code of `kvmsnap run`: the guest's own where it gave one. A guest resets or halts to end
 * itself as well as when it panics: the two cannot be told apart, and count as an end.
 */
export function stopExitCode({ reason, code }: Stop): number {
  switch (reason) {
    case 'exit-port':
      return code ?? EXIT.ok;
    case 'power-off':
    case 'reset':
    case 'halt':
    case 'closed':
      return EXIT.ok;
    case 'killed':
      return signalExitCode('SIGKILL');
    case 'shutdown':
    case 'error':
      return EXIT.failure;
  }
}

/** One line for a stop that is a failure; nothing for a guest that ended as guests do. */
export function stopProblem({ reason, error }: Stop): string | undefined {
  if (reason === 'shutdown') {
    return 'the guest shut down by a triple fault: it took an exception that it could not handle';
  }
  if (reason === 'killed') return 'the machine was killed';
  if (reason === 'error') return `the machine failed: ${error?.message ?? 'no reason was given'}`;
  return undefined;
}
