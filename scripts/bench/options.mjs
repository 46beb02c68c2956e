// The command line of main.mjs.
import { parseArgs } from 'node:util';

export const USAGE = `Usage: npm run bench -- [options]

Measures kvmsnap and, by turns in the same run, the bare ioctls that its work consists of
(scripts/bench/floor/), and prints both with their ratio. docs/benchmarks.md says what each figure is.

  --json FILE      also write the figures, and what they were measured on, as JSON
  --quick          fewer samples: ends within 50 s
  --only PATTERN   only figures whose name matches this regular expression
  --memory MIB     guest memory (default 256; 32 to 2048)
  --dir DIR        where stores and scratch files go (default: the system's temporary directory)
  --rounds N       how often product and floor take turns (default 12; with --quick 5)
  --help`;

/** A mistake of the caller: printed without a stack, exit status 2. */
export class UsageError extends Error {}

function integer(name, text, least, most) {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new UsageError(`--${name} takes a number from ${least} to ${most}, not "${text}"`);
  }
  return value;
}

function pattern(text) {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new UsageError(`--only takes a regular expression: ${error.message}`);
  }
}

/** @returns `undefined` if only help was asked for. */
export function parseOptions(argv) {
  let values;
  try {
    ({ values } = parseArgs({
      args: argv,
      options: {
        json: { type: 'string' },
        quick: { type: 'boolean', default: false },
        only: { type: 'string', default: '' },
        memory: { type: 'string', default: '256' },
        dir: { type: 'string' },
        rounds: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  if (values.help) return undefined;
  const { quick } = values;
  return {
    json: values.json,
    quick,
    only: pattern(values.only),
    memoryMiB: integer('memory', values.memory, 32, 2048),
    directory: values.dir,
    rounds: integer('rounds', values.rounds ?? (quick ? '5' : '12'), 1, 100),
    // In each round: of work below a few milliseconds, and of longer work.
    runs: quick ? 9 : 25,
    slowRuns: quick ? 1 : 3,
    // A round is not begun if it could end after this.
    budgetMs: quick ? 45_000 : Number.POSITIVE_INFINITY,
  };
}
