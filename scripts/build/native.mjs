// Builds the addon with node-gyp into build/Release/kvmsnap.node.
//
//   node scripts/build/native.mjs [--debug]
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { packageRoot } from './compile.mjs';

const debug = process.argv.includes('--debug');

// Headers that came with this Node are the right ones and need no download.
const prefix = path.resolve(process.execPath, '../..');
const hasHeaders = existsSync(path.join(prefix, 'include/node/node_api.h'));

const result = spawnSync(
  process.execPath,
  [
    path.join(packageRoot, 'node_modules/node-gyp/bin/node-gyp.js'),
    'configure',
    'build',
    `--jobs=${availableParallelism()}`,
    '--loglevel=warn',
    ...(debug ? ['--debug'] : []),
    ...(hasHeaders ? [`--nodedir=${prefix}`] : []),
  ],
  { cwd: packageRoot, stdio: ['ignore', process.env.V ? 'inherit' : 'pipe', 'inherit'] },
);
if (result.status !== 0) {
  if (result.stdout) process.stderr.write(result.stdout);
  console.error(
    'kvmsnap: the addon was not built. It needs g++ 12 or newer, make and python3: ' +
      '`apt-get install g++ make python3` on Debian. V=1 shows every command.',
  );
  process.exit(1);
}
