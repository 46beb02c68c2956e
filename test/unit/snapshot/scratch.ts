import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const root = mkdtempSync(join(tmpdir(), 'kvmsnap-store-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A new directory, removed when the tests of the file have run. */
export const scratch = (): string => mkdtempSync(join(root, 'd-'));
