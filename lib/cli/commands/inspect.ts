import type { Command } from 'commander';
import type { StoreLimits } from '../../snapshot/limits.js';
import { SnapshotStore } from '../../snapshot/store.js';
import { decodeState } from '../inspect/decode.js';
import { type Inspected, renderInspected } from '../inspect/render.js';
import { type StoreOptions, withJson, withReadStore } from '../options.js';
import { print, printJson } from '../output.js';

export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .summary('show the configuration and state in a snapshot')
    .description(
      'Shows what machine a snapshot is of, and its state: registers and MSRs by name, interrupt\n' +
        'controllers, timer, clock, devices. Zeros are left out; --json has everything.',
    )
    .argument('<ref>', 'tag or sha256: digest');
  withJson(withReadStore(command)).action(
    async (ref: string, options: StoreOptions & { json?: boolean }) => {
      const inspected = await inspect(options.store, ref, options.limit);
      if (options.json) printJson(inspected);
      else print(renderInspected(inspected));
    },
  );
}

/** Needs no KVM and no addon: a snapshot of any host can be looked at anywhere. */
export async function inspect(
  path: string,
  ref: string,
  limits: Partial<StoreLimits> = {},
): Promise<Inspected> {
  const store = await SnapshotStore.open(path, { limits });
  using loaded = await store.load(ref);
  const { digest, tag, config, extents, state, workingSet } = loaded;
  return {
    digest,
    ...(tag === undefined ? {} : { tag }),
    config,
    memory: {
      extents: extents.length,
      bytes: [...extents].reduce((sum, { length }) => sum + length, 0),
    },
    ...(workingSet
      ? {
          workingSet: {
            runs: workingSet.length,
            pages: workingSet.reduce((sum, { count }) => sum + count, 0),
          },
        }
      : {}),
    state: decodeState(state),
  };
}
