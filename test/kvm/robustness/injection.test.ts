/** Whatever fails inside a change of state: the machine is as before, or poisoned, and a reset heals it. */
import { execFileSync, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { scratch } from '../support/scratch.js';

const child = (name: string) => fileURLToPath(new URL(`children/${name}`, import.meta.url));

it('a thread, an ioctl or a file that cannot be had leaves no half of a freeze, save, load or reset', () => {
  const folder = scratch();
  const library = join(folder, 'inject.so');
  execFileSync('gcc', ['-shared', '-fPIC', '-o', library, child('inject.c'), '-ldl']);
  const control = join(folder, 'control');
  writeFileSync(control, Buffer.alloc(4096));
  const { status, stdout, stderr } = spawnSync(process.execPath, [child('injected.mjs')], {
    env: { ...process.env, LD_PRELOAD: library, INJECT: control },
    encoding: 'utf8',
  });
  const [last = '{}'] = stdout.trim().split('\n').slice(-1);
  expect(status, stdout + stderr).toBe(0);
  const { failed, bad } = JSON.parse(last);
  expect(bad).toBe(0);
  // One for each ioctl that these changes have: none would mean that nothing was injected.
  expect(failed).toBeGreaterThan(20);
}, 120_000);
