// Builds the native tests with sanitizers and runs them.
//
//   node scripts/sanitize/native.mjs            asan, then tsan
//   node scripts/sanitize/native.mjs asan|tsan|plain [ctest arguments]

import { spawnSync } from 'node:child_process';
import { accessSync, constants, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { build, root } from '../native/cmake.mjs';
import { requireTools } from '../native/tools.mjs';

const VARIANTS = {
  asan: { directory: 'build-asan', sanitize: 'address,undefined' },
  tsan: { directory: 'build-tsan', sanitize: 'thread' },
  plain: { directory: 'build-plain', sanitize: '' },
};

const SANITIZER_OPTIONS = {
  ASAN_OPTIONS: 'detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1',
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  TSAN_OPTIONS: 'halt_on_error=1:second_deadlock_stack=1',
};

const hasKvm = (() => {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
})();

function ctest(cwd, ...args) {
  return spawnSync('ctest', args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, ...SANITIZER_OPTIONS },
    maxBuffer: 256 * 1024 * 1024,
  });
}

function countTests(cwd, ...args) {
  const total = /^Total Tests: (\d+)$/m.exec(ctest(cwd, '--show-only', ...args).stdout);
  return total ? Number(total[1]) : 0;
}

function attribute(xml, name) {
  const value = new RegExp(`<testsuite[^>]*\\s${name}="(\\d+)"`).exec(xml);
  if (!value) throw new Error(`ctest's report has no number of ${name}`);
  return Number(value[1]);
}

/** Returns whether all of a variant's tests passed. */
function run(name, filters) {
  const { directory, sanitize } = VARIANTS[name];
  console.log(`${name}: building in ${directory}`);
  build(directory, { KVMSNAP_SANITIZE: sanitize, KVMSNAP_ADDON: 'OFF', KVMSNAP_TESTS: 'ON' });

  const cwd = join(root, directory);
  const report = join(cwd, 'ctest.xml');
  const select = hasKvm ? filters : [...filters, '--label-exclude', 'kvm'];
  const parallel = ['--parallel', String(availableParallelism())];
  const result = ctest(
    cwd,
    ...parallel,
    '--output-on-failure',
    '--output-junit',
    report,
    ...select,
  );
  if (result.status !== 0) {
    const passing = /^ *(Start +\d+:|\d+\/\d+ Test .* Passed )/;
    const telling = result.stdout.split('\n').filter((line) => !passing.test(line));
    process.stdout.write(`${telling.join('\n')}${result.stderr}`);
  }

  const xml = readFileSync(report, 'utf8');
  const tests = attribute(xml, 'tests');
  const failed = attribute(xml, 'failures');
  const skipped = attribute(xml, 'skipped') + attribute(xml, 'disabled');
  const withoutDevice = hasKvm ? 0 : countTests(cwd, ...filters, '--label-regex', 'kvm');
  console.log(
    `${name}: ${tests} tests, ${tests - failed - skipped} passed, ${failed} failed, ` +
      `${skipped + withoutDevice} skipped`,
  );
  if (withoutDevice > 0) {
    console.log(
      `${name}: SKIPPED ${withoutDevice} tests that need /dev/kvm, which cannot be opened`,
    );
  }
  if (tests === 0) console.log(`${name}: no test ran, which counts as failed`);
  return result.status === 0 && failed === 0 && tests > 0;
}

const [variant, ...filters] = process.argv.slice(2);
if (variant && !(variant in VARIANTS)) {
  console.error(`unknown variant ${variant}: one of ${Object.keys(VARIANTS).join(', ')}`);
  process.exit(2);
}
try {
  requireTools('g++', 'cmake', 'make', 'catch2');
  const variants = variant ? [variant] : ['asan', 'tsan'];
  const passed = variants.map((name) => run(name, filters));
  process.exitCode = passed.every(Boolean) ? 0 : 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
