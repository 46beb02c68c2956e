import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const root = mkdtempSync(join(tmpdir(), 'kvmsnap-linux-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A path for a store, removed when the tests of the file have run. */
export const scratchStore = (name: string): string => join(root, name);
