/** Changing `index.json`: under the lock, by rename, keeping what other tools have put in it. */
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { KvmsnapError } from '../errors.js';
import { storeError } from './failures.js';
import { ANNOTATION_REF_NAME, type Index, type IndexEntry, LIMITS } from './format.js';
import { INDEX_FILE, readIndex, tagOf } from './index-file.js';
import { withLock } from './lock.js';
import type { Reading } from './reading.js';
import { syncDirectory, Workspace } from './workspace.js';

/** The index with `entry` in it, which takes its tag from any other. */
export function withEntry(index: Index, entry: IndexEntry): Index {
  const tag = tagOf(entry);
  const others = index.manifests.filter((other) =>
    tag === undefined
      ? other.digest !== entry.digest || tagOf(other) !== undefined
      : tagOf(other) !== tag,
  );
  return { ...index, manifests: [...others, entry] };
}

export const taggedAs = (entry: IndexEntry, tag: string): IndexEntry => ({
  ...entry,
  annotations: { ...entry.annotations, [ANNOTATION_REF_NAME]: tag },
});

/** Some milliseconds of entries. */
const ENTRIES_PER_TURN = 4096;

/** With a line for each entry: a large index would hold the event loop if it were made in one piece. */
async function indexText(index: Index): Promise<Buffer> {
  const entries: string[] = [];
  for (const entry of index.manifests) {
    entries.push(`    ${JSON.stringify(entry)}`);
    if (entries.length % ENTRIES_PER_TURN === 0) await nextTurn();
  }
  const list = entries.length === 0 ? '[]' : `[\n${entries.join(',\n')}\n  ]`;
  const keys = Object.entries(index).map(([key, value]) => {
    const text = key === 'manifests' ? list : JSON.stringify(value);
    return `  ${JSON.stringify(key)}: ${text}`;
  });
  return Buffer.from(`{\n${keys.join(',\n')}\n}\n`);
}

/** Writes the new index beside the old one; the function that it gives renames it into place. */
export async function prepareIndex(
  workspace: Workspace,
  index: Index,
  durable: boolean,
): Promise<() => Promise<void>> {
  const bytes = await indexText(index);
  if (bytes.length > LIMITS.indexFile) {
    throw new KvmsnapError(
      'ERR_STORE',
      `the store's ${INDEX_FILE} would have ${bytes.length} bytes, more than ` +
        `${LIMITS.indexFile}: delete snapshots, or use another store`,
    );
  }
  const path = await workspace.write(INDEX_FILE, bytes, durable);
  return () => rename(path, join(workspace.store, INDEX_FILE));
}

/** Replaces the index by what `change` makes of it. Errors are `ERR_STORE` that say `doing`. */
export async function updateIndex(
  reading: Reading,
  durable: boolean,
  doing: string,
  change: (index: Index) => Index | Promise<Index>,
): Promise<void> {
  const { store } = reading;
  let workspace: Workspace | undefined;
  try {
    const mine = new Workspace(store);
    workspace = mine;
    await withLock(mine, async () => {
      const put = await prepareIndex(mine, await change(await readIndex(reading)), durable);
      await put();
      if (durable) await syncDirectory(store);
    });
  } catch (cause) {
    throw storeError(doing, cause);
  } finally {
    await workspace?.remove().catch(() => undefined);
  }
}
