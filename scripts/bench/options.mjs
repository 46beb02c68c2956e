// The command line of main.mjs.
import { parseArgs } from 'node:util';
import { parseSize, SIZES_ALLOWED } from './sizes.mjs';

export const USAGE = `Usage: npm run bench -- [options]

Measures kvmsnap and, by turns in the same run, the bare ioctls that its work consists of
(scripts/bench/floor/), and prints both with their ratio. docs/benchmarks.md says what each figure is.

  --json FILE      also write the figures, and what they were measured on, as JSON
  --quick          fewer samples: ends within 50 s, unless --rounds is given, too
  --only PATTERN   only figures whose name matches this regular expression
  --memory SIZE    guest memory: 64M, 256M (default), 1G, ... ${SIZES_ALLOWED}
  --sizes A,B,...  the same for several sizes, one after the other
  --dir DIR        where stores and scratch files go (default: the system's temporary directory)
  --rounds N       how often product and floor take turns (default 12, from 512M on 4;
                   with --quick 5)
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

function size(name, text) {
  const mib = parseSize(text);
  if (mib === undefined) {
    throw new UsageError(`--${name} takes sizes of ${SIZES_ALLOWED}, such as 256M, not "${text}"`);
  }
  return mib;
}

function sizesOf({ memory, sizes }) {
  if (memory !== undefined && sizes !== undefined) {
    throw new UsageError('--memory and --sizes exclude each other');
  }
  if (sizes === undefined) return [size('memory', memory ?? '256M')];
  return sizes.split(',').map((text) => size('sizes', text));
}

/** How many samples are taken of machines of that size. */
export function samplesOf(memoryMiB, { quick, rounds }) {
  const large = memoryMiB >= 512;
  return {
    rounds: rounds ?? (quick ? 5 : large ? 4 : 12),
    // In each round: of work below a few milliseconds, and of longer work.
    runs: quick ? 9 : 25,
    slowRuns: quick || large ? 1 : 3,
  };
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
        memory: { type: 'string' },
        sizes: { type: 'string' },
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
  const sizesMiB = sizesOf(values);
  return {
    json: values.json,
    quick,
    only: pattern(values.only),
    sizesMiB,
    directory: values.dir,
    rounds: values.rounds === undefined ? undefined : integer('rounds', values.rounds, 1, 100),
    // Of each size: a round is not begun if it could end after this. Rounds that were asked for are all done.
    budgetMs:
      quick && values.rounds === undefined ? 40_000 / sizesMiB.length : Number.POSITIVE_INFINITY,
  };
}
