import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

/** A new directory, removed at the end of the test. */
export function scratch(): string {
  const path = mkdtempSync(join(tmpdir(), 'kvmsnap-kvm-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}
