// The cache of the emulated host, in the repository and ignored by git.

import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const REPOSITORY = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const CACHE = join(REPOSITORY, '.cache', 'emulated-host');

/**
 * `CACHE/<name>`, made by `make(directory)` unless it is there already. It appears by rename, so
 * that it is whole or absent, whatever is interrupted and however many make it at once.
 */
export function cachedDirectory(name, make) {
  const directory = join(CACHE, name);
  if (existsSync(directory)) return directory;
  mkdirSync(CACHE, { recursive: true });
  const scratch = mkdtempSync(join(CACHE, `${name}.new-`));
  try {
    make(scratch);
    renameSync(scratch, directory);
  } catch (error) {
    const otherWasFirst = error.code === 'ENOTEMPTY' || error.code === 'EEXIST';
    if (!otherWasFirst) throw error;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return directory;
}
