// Checks the C++ under native/ with clang-format and clang-tidy.
//
//   node scripts/lint/native.mjs [--fix] [--format-only] [file.cc ...]
//
// --fix formats in place and applies what clang-tidy can fix. Without files: all of native/.

import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { configure, root } from '../native/cmake.mjs';
import { requireTools } from '../native/tools.mjs';

const DIRECTORY = 'build-lint';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { fix: { type: 'boolean' }, 'format-only': { type: 'boolean' } },
});

function sources() {
  if (positionals.length > 0) return positionals.map((file) => resolve(file));
  return readdirSync(join(root, 'native'), { recursive: true })
    .filter((name) => /\.(cc|h)$/.test(name))
    .map((name) => join(root, 'native', name))
    .sort();
}

/** Returns whether all files are formatted. */
function format(files) {
  const mode = options.fix ? ['-i'] : ['--dry-run', '--Werror'];
  const result = spawnSync('clang-format', [...mode, ...files], { stdio: 'inherit' });
  console.log(`clang-format: ${files.length} files${result.status === 0 ? '' : ', see above'}`);
  return result.status === 0;
}

function tidyOne(file) {
  const args = ['-p', join(root, DIRECTORY), '--quiet', '--warnings-as-errors=*'];
  if (options.fix) args.push('--fix', '--format-style=file');
  const child = spawn('clang-tidy', [...args, file], { stdio: ['ignore', 'pipe', 'ignore'] });
  return new Promise((done, fail) => {
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
    child.on('error', fail);
    child.on('close', (status) => done({ file, status, output }));
  });
}

/** Returns whether clang-tidy finds nothing in `files`, and every one of them is built. */
async function tidy(files) {
  configure(DIRECTORY, { KVMSNAP_TESTS: 'ON', KVMSNAP_ADDON: 'ON' });
  const database = JSON.parse(readFileSync(join(root, DIRECTORY, 'compile_commands.json'), 'utf8'));
  const built = new Set(database.map((entry) => entry.file));
  const unbuilt = files.filter((file) => !built.has(file));
  for (const file of unbuilt) {
    console.error(
      `${relative(root, file)} is in no build: add it to native/sources.txt or native/test/CMakeLists.txt`,
    );
  }

  const queue = files.filter((file) => built.has(file));
  const count = queue.length;
  let bad = 0;
  // Fixing one at a time: two files may want to change the same header.
  const lanes = options.fix ? 1 : availableParallelism();
  const work = async () => {
    for (let file = queue.pop(); file; file = queue.pop()) {
      const { status, output } = await tidyOne(file);
      if (status === 0) continue;
      bad += 1;
      process.stdout.write(output || `clang-tidy failed on ${relative(root, file)} (${status})\n`);
    }
  };
  await Promise.all(Array.from({ length: lanes }, work));
  console.log(`clang-tidy: ${count} files, ${bad} with findings`);
  return bad === 0 && unbuilt.length === 0;
}

try {
  requireTools('clang-format');
  const files = sources();
  const missing = files.filter((file) => !existsSync(file));
  if (missing.length > 0) throw new Error(`no such file: ${missing.join(', ')}`);
  let passed = format(files);
  if (!options['format-only']) {
    requireTools('clang-tidy', 'g++', 'cmake', 'make', 'catch2');
    passed = (await tidy(files.filter((file) => file.endsWith('.cc')))) && passed;
  }
  process.exitCode = passed ? 0 : 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
