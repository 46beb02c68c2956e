import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { requireArgument } from '../../errors.js';
import { SnapshotStore } from '../../snapshot/store.js';
import type { Vm } from '../../vm/vm.js';
import type { Exit } from '../exit.js';
import { hostMachine } from '../hosting.js';
import {
  type HostingOptions,
  limitsOf,
  type StoreOptions,
  withDirtyRing,
  withHosting,
  withReadStore,
} from '../options.js';
import { note } from '../output.js';
import { DIFFERENCE_KINDS } from '../spec.js';

interface RestoreOptions extends HostingOptions, StoreOptions {
  verify?: boolean;
  ignore?: (typeof DIFFERENCE_KINDS)[number][];
  dirtyRing?: number;
  onDemand?: boolean;
  prefetch?: boolean;
  record?: string;
  generation?: 'new' | 'keep';
  clock?: 'host' | 'keep';
}

function pagingOf(options: RestoreOptions): { paging?: { prefetch: boolean; record: boolean } } {
  const { onDemand = false, prefetch = false, record, name } = options;
  requireArgument(
    onDemand || (!prefetch && record === undefined),
    '--prefetch and --record go with --on-demand',
  );
  requireArgument(
    record === undefined || name === undefined,
    '--record does not go with --name: what was touched is known when the machine ends here',
  );
  return onDemand ? { paging: { prefetch, record: record !== undefined } } : {};
}

async function keepWorkingSet(
  vm: Vm,
  { ref, tag, ...options }: StoreOptions & { ref: string; tag: string },
): Promise<void> {
  const runs = vm.workingSet();
  const store = await SnapshotStore.open(options.store, limitsOf(options));
  const digest = await store.addWorkingSet(ref, runs, { tag });
  const pages = runs.reduce((sum, { count }) => sum + count, 0);
  note(`${tag} is ${digest}, with a working set of ${pages} pages`);
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
    .option('--verify', 'read all of the snapshot and compare it with its checksums first')
    .option('--on-demand', 'memory comes from the files page by page, as the guest touches it')
    .option('--prefetch', 'with --on-demand: fetch the working set in the snapshot first')
    .option(
      '--record <tag>',
      'with --on-demand: tag the snapshot anew, with the pages that the guest touched',
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
  withHosting(withDirtyRing(withReadStore(command))).action(
    async (ref: string, options: RestoreOptions) => {
      const { store, ignore = [], dirtyRing, record, generation, clock, verify } = options;
      const ring = dirtyRing === undefined ? {} : { dirtyRing };
      const identity = { ...(generation && { generation }), ...(clock && { clock }) };
      exit.code = await hostMachine(
        {
          kind: 'snapshot',
          store: resolve(store),
          ref,
          ignore,
          identity,
          ...limitsOf(options),
          ...(verify ? { verify } : {}),
          ...ring,
          ...pagingOf(options),
        },
        options,
        record === undefined
          ? undefined
          : (vm) => keepWorkingSet(vm, { ...options, ref, tag: record }),
      );
    },
  );
}
