import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { Exit } from '../exit.js';
import { hostMachine } from '../hosting.js';
import { type HostingOptions, withDirtyRing, withHosting, withStore } from '../options.js';
import { DIFFERENCE_KINDS } from '../spec.js';

interface RestoreOptions extends HostingOptions {
  store: string;
  ignore?: (typeof DIFFERENCE_KINDS)[number][];
  dirtyRing?: number;
  generation?: 'new' | 'keep';
  clock?: 'host' | 'keep';
}

export function addRestore(program: Command, exit: Exit): void {
  const command = program
    .command('restore')
    .summary('make a new machine from a snapshot and let it run on')
    .description(
      'Makes a new machine from a snapshot and lets it run on, with its console on this terminal.',
    )
    .argument('<ref>', 'tag or sha256: digest')
    .addOption(
      new Option(
        '--ignore <kind...>',
        'differences between this host and the one it was taken on to let pass',
      ).choices(DIFFERENCE_KINDS),
    )
    .addOption(
      new Option(
        '--generation <policy>',
        'VM generation ID: new, so that the guest seeds its random numbers anew (default where the ' +
          'machine has one), or keep',
      ).choices(['new', 'keep']),
    )
    .addOption(
      new Option(
        '--clock <policy>',
        "the guest's clock goes on from where it stood (keep, default) or shows the time of the host",
      ).choices(['host', 'keep']),
    );
  withHosting(withDirtyRing(withStore(command))).action(
    async (ref: string, options: RestoreOptions) => {
      const { store, ignore = [], dirtyRing, generation, clock } = options;
      const ring = dirtyRing === undefined ? {} : { dirtyRing };
      const identity = { ...(generation && { generation }), ...(clock && { clock }) };
      exit.code = await hostMachine(
        { kind: 'snapshot', store: resolve(store), ref, ignore, identity, ...ring },
        options,
      );
    },
  );
}
