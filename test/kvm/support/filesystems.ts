/** File systems that refuse, for tests that run as root. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

const mount = (...args: string[]): boolean => spawnSync('mount', args).status === 0;
const unmount = (path: string): void => {
  spawnSync('umount', ['-l', path]);
  rmdirSync(path);
};
const newDirectory = (): string => mkdtempSync(join(tmpdir(), 'kvmsnap-fs-'));

/** Whether a tmpfs can be mounted here. */
export function canMount(): boolean {
  const probe = newDirectory();
  const mounted = mount('-t', 'tmpfs', 'tmpfs', probe);
  if (mounted) unmount(probe);
  else rmdirSync(probe);
  return mounted;
}

/** A tmpfs of `size` bytes, unmounted at the end of the test. */
export function mountTmpfs(size: number): string {
  const path = newDirectory();
  if (!mount('-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path)) throw new Error('mount failed');
  onTestFinished(() => unmount(path));
  return path;
}

export function remount(path: string, mode: 'ro' | 'rw'): void {
  if (!mount('-o', `remount,${mode}`, path)) throw new Error('remount failed');
}
