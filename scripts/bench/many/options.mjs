// The command line of main.mjs.
import { parseArgs } from 'node:util';
import { UsageError } from '../options.mjs';
import { parseSize, SIZES_ALLOWED } from '../sizes.mjs';

export const USAGE = `Usage: npm run bench:fanout -- [options]
       npm run bench:churn -- [options]

fanout: many forks of one snapshot alive at once: forks/s, PSS of each, their end.
churn: machines that are made, run to their first exit and closed: machines/s, cold and pooled.

  --memory SIZE    guest memory (default 256M; ${SIZES_ALLOWED})
  --count N        fanout: how many forks (default 1000)
  --parallel A,B   churn: how many at a time (default 1,4)
  --seconds N      churn: how long each is measured (default 5)
  --json FILE      also write the figures as JSON
  --help`;

const WHATS = ['fanout', 'churn'];

function integer(name, text, most) {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > most) {
    throw new UsageError(`--${name} takes numbers from 1 to ${most}, not "${text}"`);
  }
  return value;
}

function parse(args) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: {
        memory: { type: 'string', default: '256M' },
        count: { type: 'string', default: '1000' },
        parallel: { type: 'string', default: '1,4' },
        seconds: { type: 'string', default: '5' },
        json: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new UsageError(error.message);
  }
}

/** @returns `undefined` if only help was asked for. */
export function parseManyOptions(argv) {
  const { values, positionals } = parse(argv);
  if (values.help) return undefined;
  if (positionals.length !== 1 || !WHATS.includes(positionals[0])) {
    throw new UsageError(`say what to measure: ${WHATS.join(' or ')}`);
  }
  const memoryMiB = parseSize(values.memory);
  if (memoryMiB === undefined) {
    throw new UsageError(`--memory takes ${SIZES_ALLOWED}, such as 256M, not "${values.memory}"`);
  }
  return {
    what: positionals[0],
    memoryMiB,
    count: integer('count', values.count, 100_000),
    lanes: values.parallel.split(',').map((text) => integer('parallel', text, 64)),
    ms: integer('seconds', values.seconds, 3600) * 1000,
    json: values.json,
  };
}
