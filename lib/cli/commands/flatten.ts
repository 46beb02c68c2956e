import type { Command } from 'commander';
import { Snapshot } from '../../index.js';
import { limitsOf, type StoreOptions, withJson, withReadStore } from '../options.js';
import { print, printable, printJson } from '../output.js';
import { progressBar } from '../progress.js';

interface FlattenOptions extends StoreOptions {
  tag?: string;
  parent?: string;
  json?: boolean;
}

export function addFlatten(program: Command): void {
  const command = program
    .command('flatten')
    .summary('make one full snapshot of a chain of increments')
    .description(
      'Writes a snapshot that was taken in increments again, as a full one, or as one increment on\n' +
        'an ancestor. It is verified first. The old ones stay until they are deleted.',
    )
    .argument('<ref>', 'tag or sha256: digest')
    .option('--tag <tag>', 'name for the new snapshot; one in use moves to it')
    .option('--parent <ref>', 'an ancestor: write one increment on it');
  withJson(withReadStore(command)).action(async (ref: string, options: FlattenOptions) => {
    const { store, tag, parent, json = false } = options;
    using bar = progressBar(`flattening ${ref}`, !json);
    const open = (name: string) => Snapshot.open(store, name, limitsOf(options));
    using snapshot = await open(ref);
    using ancestor = parent === undefined ? undefined : await open(parent);
    using flat = await snapshot.flatten({
      ...(tag === undefined ? {} : { tag }),
      ...(ancestor === undefined ? {} : { parent: ancestor }),
      onProgress: (done, total) => bar.update(done, total),
    });
    bar[Symbol.dispose]();
    if (json) printJson({ digest: flat.digest, ...(tag === undefined ? {} : { tag }) });
    else print(printable(tag === undefined ? flat.digest : `${tag}  ${flat.digest}`));
  });
}
