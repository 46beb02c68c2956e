/** `list`, `delete`, `gc`: what touches a store only. */
import type { Command } from 'commander';
import type { SnapshotEntry } from '../../snapshot/list.js';
import { SnapshotStore } from '../../snapshot/store.js';
import { limitsOf, type StoreOptions, withJson, withReadStore } from '../options.js';
import {
  formatAge,
  formatBytes,
  print,
  printable,
  printJson,
  shortDigest,
  table,
} from '../output.js';
import { parseDuration } from '../values.js';

interface Options extends StoreOptions {
  json?: boolean;
}

const opened = (options: StoreOptions): Promise<SnapshotStore> =>
  SnapshotStore.open(options.store, limitsOf(options));

export function addStoreCommands(program: Command): void {
  const list = program.command('list').description('List the snapshots of a store.');
  withJson(withReadStore(list)).action(async (options: Options) => {
    const entries = await (await opened(options)).list();
    if (options.json) printJson(entries.map(entryJson));
    else print(renderList(entries, Date.now()));
  });

  const remove = program
    .command('delete')
    .summary('remove a tag, or with a digest all names of a snapshot')
    .description(
      'Removes a tag, or with a digest all names of a snapshot. `kvmsnap gc` frees the bytes.',
    )
    .argument('<ref>', 'tag or sha256: digest');
  withJson(withReadStore(remove)).action(async (ref: string, options: Options) => {
    await (await opened(options)).delete(ref);
    if (options.json) printJson({ deleted: ref });
    else print(`deleted ${printable(ref)}`);
  });

  const gc = program
    .command('gc')
    .description('Remove blobs that no snapshot of a store needs.')
    .option(
      '--grace <duration>',
      'keep blobs younger than this, which another tool may be about to name (default: 1h)',
      parseDuration,
    );
  withJson(withReadStore(gc)).action(async (options: Options & { grace?: number }) => {
    const store = await opened(options);
    const result = await store.gc(options.grace === undefined ? {} : { graceMs: options.grace });
    if (options.json) printJson(result);
    else print(`removed ${result.blobs} blobs, ${formatBytes(result.bytes)}`);
  });
}

function entryJson(entry: SnapshotEntry) {
  if (!('problem' in entry)) return entry;
  const { problem, ...name } = entry;
  return { ...name, problem: { code: problem.code, message: problem.message } };
}

export function renderList(entries: readonly SnapshotEntry[], now: number): string {
  const header = ['TAG', 'DIGEST', 'AGE', 'CPUS', 'MEMORY', 'SIZE', 'PARENT'];
  const rows = entries.map((entry) => {
    const name = [entry.tag ?? '-', shortDigest(entry.digest)];
    if ('problem' in entry) return [...name, `damaged: ${entry.problem.message}`];
    const { created, vcpus, memory, bytes, parent } = entry.summary;
    const age = formatAge(now - Date.parse(created));
    const sizes = [`${vcpus}`, formatBytes(memory), formatBytes(bytes)];
    return [...name, age, ...sizes, parent === null ? '-' : shortDigest(parent)];
  });
  return table([header, ...rows]);
}
