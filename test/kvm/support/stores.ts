/** What is in a snapshot store's directory. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Files that writers left behind. */
export const leftovers = (path: string): string[] => [
  ...readdirSync(join(path, '.kvmsnap')).filter((name) => name !== 'tmp'),
  ...readdirSync(join(path, '.kvmsnap', 'tmp')),
];

/** Names and index of a store that a failed save must leave as they were. */
export const contents = (path: string): unknown => [
  readFileSync(join(path, 'index.json'), 'utf8'),
  readdirSync(join(path, 'blobs', 'sha256')).sort(),
  leftovers(path),
];
