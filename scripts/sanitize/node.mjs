// Runs the kvm tier of the tests in Node with an addon built with AddressSanitizer and UBSan.
//
//   node scripts/sanitize/node.mjs [vitest arguments, by default --project kvm]
//
// Leaks are looked for by the native tests (scripts/sanitize/native.mjs): Node itself frees little
// when it exits.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { addonPath, build, root } from '../native/cmake.mjs';
import { requireTools } from '../native/tools.mjs';

const DIRECTORY = 'build-asan-node';
const reports = join(root, DIRECTORY, 'reports');

function runTests(args) {
  const runtime = execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
  const vitest = join(
    dirname(createRequire(import.meta.url).resolve('vitest/package.json')),
    'vitest.mjs',
  );
  const log = join(reports, 'sanitizer');
  return spawnSync(process.execPath, [vitest, 'run', ...args], {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      KVMSNAP_ADDON: addonPath(DIRECTORY),
      // The sanitizer's allocator has to be there before Node's first allocation.
      LD_PRELOAD: runtime,
      ASAN_OPTIONS: `detect_leaks=0:strict_string_checks=1:log_path=${log}`,
      UBSAN_OPTIONS: `print_stacktrace=1:halt_on_error=1:log_path=${log}`,
    },
  }).status;
}

try {
  requireTools('g++', 'cmake', 'make');
  const options = {
    KVMSNAP_SANITIZE: 'address,undefined',
    KVMSNAP_ADDON: 'ON',
    KVMSNAP_TESTS: 'OFF',
  };
  console.log(`building the addon with sanitizers in ${DIRECTORY}`);
  build(DIRECTORY, options, 'kvmsnap');
  if (!existsSync(addonPath(DIRECTORY))) throw new Error(`no addon at ${addonPath(DIRECTORY)}`);

  rmSync(reports, { recursive: true, force: true });
  mkdirSync(reports, { recursive: true });
  const args = process.argv.slice(2);
  const status = runTests(args.length > 0 ? args : ['--project', 'kvm']);

  // A worker that dies as it exits may leave the tests passed, so the reports decide as well.
  const found = readdirSync(reports);
  for (const name of found) process.stdout.write(readFileSync(join(reports, name), 'utf8'));
  console.log(`sanitizers: ${found.length} reports`);
  process.exitCode = status === 0 && found.length === 0 ? 0 : 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
