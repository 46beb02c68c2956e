import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { withMachine } from '../hosting.js';
import { withJson, withStore } from '../options.js';
import { formatBytes, formatMs, print, printable, printJson } from '../output.js';
import { progressBar } from '../progress.js';
import { collectPairs, parseName } from '../values.js';

interface SnapshotOptions {
  store: string;
  tag?: string;
  parent?: string;
  then: 'resume' | 'pause' | 'stop';
  annotate?: Record<string, string>;
  json?: boolean;
}

export function addSnapshot(program: Command): void {
  const command = program
    .command('snapshot')
    .summary('save a named machine to a store, while it runs')
    .description(
      'Saves a named machine to a store, which is made if it is not there. A running guest stands\n' +
        'still only while its memory is frozen. Interrupted, it leaves store and machine as before.',
    )
    .argument('<name>', 'name of the machine', parseName)
    .option('--tag <tag>', 'name for the snapshot; one in use moves to it')
    .option(
      '--parent <ref>',
      'write only what changed since this snapshot: one of this machine in the same store',
    )
    .addOption(
      new Option('--then <what>', 'what becomes of the machine')
        .choices(['resume', 'pause', 'stop'])
        .default('resume'),
    )
    .option('--annotate <key=value>', 'text kept with it; repeat for several', collectPairs);
  withJson(withStore(command)).action(async (name: string, options: SnapshotOptions) => {
    const { store, tag, parent, annotate, json = false } = options;
    using bar = progressBar(`saving ${name}`, !json);
    const result = await withMachine(name, (client) =>
      client.snapshot(
        {
          store: resolve(store),
          then: options.then,
          ...(tag === undefined ? {} : { tag }),
          ...(parent === undefined ? {} : { parent }),
          ...(annotate === undefined ? {} : { annotations: annotate }),
        },
        (done, total) => bar.update(done, total),
      ),
    );
    bar[Symbol.dispose]();
    if (json) return printJson(result);
    print(printable(tag === undefined ? result.digest : `${tag}  ${result.digest}`));
    print(
      `paused ${formatMs(result.pauseMs)}, written in ${formatMs(result.writeMs)}: ` +
        `${formatBytes(result.bytes)}, ${result.pages} pages of memory`,
    );
  });
}
