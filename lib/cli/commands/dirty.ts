import { type Command, Option } from 'commander';
import { TRACKERS, type TrackerName } from '../../dirty/epoch.js';
import { requireArgument } from '../../errors.js';
import { MachineClient } from '../control/client.js';
import { csvFormat, type EpochFormat, jsonFormat, plotFormat } from '../dirty-output.js';
import type { Exit } from '../exit.js';
import { signalExitCode } from '../exit-codes.js';
import { withJson } from '../options.js';
import { parseDuration, parseInteger, parseName } from '../values.js';

interface DirtyOptions {
  tracker: TrackerName;
  every: number;
  count?: number;
  csv?: boolean;
  json?: boolean;
  plot?: boolean;
}

export function addDirty(program: Command, exit: Exit): void {
  const command = program
    .command('dirty')
    .summary('watch which pages a named machine writes')
    .description(
      'Tracks which pages of memory a named machine writes, until interrupted. The tracker ring\n' +
        'needs a machine that was started with --dirty-ring.',
    )
    .argument('<name>', 'name of the machine', parseName)
    .addOption(
      new Option('--tracker <tracker>', 'how to find out').choices(TRACKERS).default('bitmap'),
    )
    .option('--every <duration>', 'from one harvest to the next', parseDuration, 100)
    .option('--count <n>', 'end after so many harvests', parseInteger(1, 1_000_000_000))
    .option('--csv', 'print comma-separated values')
    .option('--plot', 'print a chart, a line for each harvest (the default)');
  withJson(command).action(async (name: string, options: DirtyOptions) => {
    exit.code = await watch(name, options, formatOf(options));
  });
}

function formatOf({ csv, json, plot }: DirtyOptions): EpochFormat {
  requireArgument(
    [csv, json, plot].filter(Boolean).length <= 1,
    '--csv, --json and --plot exclude each other',
  );
  if (csv) return csvFormat();
  return json ? jsonFormat() : plotFormat();
}

async function watch(name: string, options: DirtyOptions, format: EpochFormat): Promise<number> {
  const { tracker, every, count } = options;
  using client = await MachineClient.connect(name);
  let begun = false;
  const begin = (): void => {
    if (!begun) process.stdout.write(format.begin());
    begun = true;
  };
  const interrupted = onInterrupt();
  try {
    const done = client.dirty(
      { tracker, every, ...(count === undefined ? {} : { count }) },
      (epoch) => {
        begin();
        process.stdout.write(format.epoch(epoch));
      },
    );
    const code = await Promise.race([done.then(() => 0), interrupted.code]);
    begin();
    process.stdout.write(format.end());
    return code;
  } finally {
    interrupted.release();
  }
}

/** Ctrl-C is the usual end: what was begun is printed to its end. */
function onInterrupt(): { code: Promise<number>; release(): void } {
  let resolve: (code: number) => void = () => {};
  const code = new Promise<number>((settle) => {
    resolve = settle;
  });
  const onSignal = (signal: NodeJS.Signals): void => resolve(signalExitCode(signal));
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, onSignal);
  return {
    code,
    release() {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, onSignal);
    },
  };
}
