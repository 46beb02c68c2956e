// Runs the C compiler for the parts of kvmsnap that are no addon: guests and the floor program.
import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const packageRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

const INSTALL_HINT =
  'Install a C compiler with its binutils: `apt-get install gcc libc6-dev` on Debian or Ubuntu, ' +
  '`dnf install gcc` on Fedora. Set CC to use one that is not named gcc.';

/** True if `output` is missing, or older than any of `inputs`. */
export function isStale(output, inputs) {
  const built = statSync(output, { throwIfNoEntry: false });
  if (!built) return true;
  return inputs.some((input) => statSync(input).mtimeMs > built.mtimeMs);
}

/** Runs the C compiler; throws an error with its output, and how to get one if there is none. */
export function compile(args, options = {}) {
  const compiler = process.env.CC || 'gcc';
  const result = spawnSync(compiler, args, { encoding: 'utf8', ...options });
  if (result.error) {
    throw new Error(`cannot run ${compiler}: ${result.error.message}. ${INSTALL_HINT}`);
  }
  if (result.status !== 0) {
    const noTools = /cannot execute|No such file.*(?:\bas\b|\bld\b)|cannot find .?ld/.test(
      result.stderr,
    );
    const how = noTools ? `\n${INSTALL_HINT}` : '';
    const status = result.status ?? result.signal;
    throw new Error(`${compiler} failed (${status}) on ${args.at(-1)}:\n${result.stderr}${how}`);
  }
  if (result.stderr) process.stderr.write(result.stderr);
}
