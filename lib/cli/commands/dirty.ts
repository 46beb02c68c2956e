import { type Command, Option } from 'commander';
import { TRACKERS, type TrackerName } from '../../dirty/epoch.js';
import { requireArgument } from '../../errors.js';
import { MachineClient } from '../control/client.js';
import { csvFormat, type EpochFormat, jsonFormat, plotFormat } from '../dirty-output.js';
import { onSignal } from '../ending.js';
import { withJson } from '../options.js';
import { printPart } from '../output.js';
import { parseDuration, parseInteger, parseName } from '../values.js';

interface DirtyOptions {
  tracker: TrackerName;
  every: number;
  count?: number;
  csv?: boolean;
  json?: boolean;
  plot?: boolean;
}

export function addDirty(program: Command): void {
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
    await watch(name, options, formatOf(options));
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

async function watch(name: string, options: DirtyOptions, format: EpochFormat): Promise<void> {
  const { tracker, every, count } = options;
  using client = await MachineClient.connect(name);
  let begun = false;
  const begin = (): void => {
    if (!begun) printPart(format.begin());
    begun = true;
  };
  // Ctrl-C is the usual end: what was begun is printed to its end.
  let interrupt: () => void = () => {};
  const interrupted = new Promise<void>((resolve) => {
    interrupt = resolve;
  });
  using _ = onSignal(interrupt);
  const done = client.dirty(
    { tracker, every, ...(count === undefined ? {} : { count }) },
    (epoch) => {
      begin();
      printPart(format.epoch(epoch));
    },
  );
  done.catch(() => undefined);
  await Promise.race([done, interrupted]);
  begin();
  printPart(format.end());
}
