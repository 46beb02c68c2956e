// The development build of the native code (CMakeLists.txt), through cmake-js.

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const CONFIGURATION = 'RelWithDebInfo';
const cmakeJs = join(
  dirname(createRequire(import.meta.url).resolve('cmake-js/package.json')),
  'bin/cmake-js',
);

function runCmakeJs(command, directory, options, extra = []) {
  const args = [cmakeJs, command, '--out', join(root, directory), '--config', CONFIGURATION];
  args.push('--log-level', 'error', '--parallel', String(availableParallelism()), ...extra);
  for (const [name, value] of Object.entries(options)) args.push(`--CD${name}=${value}`);
  const result = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  if (result.status === 0) return;
  // A compiler's first error is what counts, and it comes long before the end of the output.
  const lines = `${result.stdout}${result.stderr}`.split('\n');
  const first = Math.max(0, lines.findIndex((line) => /error|FAILED/i.test(line)) - 2);
  throw new Error(
    `cmake-js ${command} in ${directory} failed:\n${lines.slice(first, first + 60).join('\n')}`,
  );
}

/** Writes the build files and compile_commands.json. `options` are CMake variables. */
export function configure(directory, options) {
  runCmakeJs('configure', directory, options);
}

/** Builds everything, or one target. */
export function build(directory, options, target) {
  configure(directory, options);
  runCmakeJs('build', directory, options, target ? ['--target', target] : []);
}

/** Where `build` leaves the addon. */
export const addonPath = (directory) => join(root, directory, CONFIGURATION, 'kvmsnap.node');
