// Runs commands that leave nothing behind, however they or this process end: see guard.sh.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const GUARD = fileURLToPath(new URL('./guard.sh', import.meta.url));
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];

const exitCode = (signal) => 128 + constants.signals[signal];

/**
 * Calls `work` with a directory, which is removed at the end, and a function that runs a command and gives its
 * exit status; its arguments are those of `spawn`. A signal ends what runs, and then this process.
 */
export async function guarded(work) {
  const directory = mkdtempSync(join(tmpdir(), 'kvmsnap-test-'));
  let child;
  let received;
  const onSignal = (signal) => {
    received ??= signal;
    child?.kill('SIGTERM');
  };
  const run = async (command, args, options = {}) => {
    if (received !== undefined) return exitCode(received);
    const guard = ['--pdeathsig', 'TERM', '--', 'sh', GUARD, directory, String(process.pid)];
    child = spawn('setpriv', [...guard, command, ...args], { stdio: 'inherit', ...options });
    return new Promise((resolve, reject) => {
      child.once('error', ({ message }) => reject(new Error(`setpriv (util-linux): ${message}`)));
      child.once('close', (status, signal) => resolve(status ?? exitCode(signal)));
    });
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    return await work(directory, run);
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
    rmSync(directory, { recursive: true, force: true });
    if (received !== undefined) process.exit(exitCode(received));
  }
}
