#!/usr/bin/env node
// npm run mutate: puts small faults into the native core, one at a time, and says which of them no test finds.
//
//   node scripts/mutate/main.mjs [--minutes N] [--seed N] [--survivors] [--native] [PATTERN]
//   node scripts/mutate/main.mjs --report
//
// PATTERN selects files by a regular expression. It goes on where the last run stopped, in the order that the seed
// says (default 1), those files first that scripts/mutate/tests.mjs ranks first, for N minutes (default 60).
// --survivors tries those again that survived. --native leaves out the tests of vitest's. What came of each is
// in build-mutate/results.jsonl, and --report prints it as tables.
//
// Native tests need catch2, those of vitest's /dev/kvm and `npm run build`.

import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { root } from '../native/cmake.mjs';
import { requireTools } from '../native/tools.mjs';
import { mutantsOf, shuffled } from './mutants.mjs';
import { reportOf } from './report.mjs';
import { rankOf, testsFor } from './tests.mjs';
import { build, DIRECTORY, original, prepare, runNative, runVitest, write } from './workbench.mjs';

const RESULTS = join(DIRECTORY, 'results.jsonl');
const FOLDERS = ['native/vmm', 'native/memory', 'native/devices'];

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string', default: '1' },
    survivors: { type: 'boolean', default: false },
    native: { type: 'boolean', default: false },
    report: { type: 'boolean', default: false },
  },
});

const say = (text) => process.stdout.write(`${text}\n`);

const files = FOLDERS.flatMap((folder) =>
  readdirSync(join(root, folder), { recursive: true })
    .filter((name) => name.endsWith('.cc'))
    .map((name) => join(folder, name)),
);

const readResults = () =>
  existsSync(RESULTS)
    ? readFileSync(RESULTS, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line))
    : [];

/** What is to be tried, in its order. */
function plan() {
  const pattern = new RegExp(positionals[0] ?? '.');
  const outcomes = new Map(readResults().map(({ key, outcome }) => [key, outcome]));
  const wanted = ({ key }) =>
    options.survivors ? outcomes.get(key) === 'survived' : !outcomes.has(key);
  const all = files
    .filter((file) => pattern.test(file))
    .flatMap((file) => mutantsOf(file, original(file)));
  return shuffled(all.filter(wanted), options.seed).sort((a, b) => rankOf(a.file) - rankOf(b.file));
}

/** The first test that finds it. */
async function firstFailure({ native, vitest }) {
  for (const name of native) {
    const failure = await runNative(name);
    if (failure) return failure;
  }
  if (options.native || vitest.length === 0) return undefined;
  const { built, output } = await build('kvmsnap');
  if (!built) throw new Error(`the addon does not link:\n${output.slice(-2000)}`);
  for (const file of vitest) {
    const failure = await runVitest(file);
    if (failure) return failure;
  }
  return undefined;
}

const checked = new Set();
/** That the tests of a file pass, and how long they take, without a fault. */
async function checkTests({ native, vitest }) {
  const id = [...native, ...vitest].join();
  if (checked.has(id)) return;
  const { built, output } = await build(...native, ...(options.native ? [] : ['kvmsnap']));
  if (!built) throw new Error(`the sources do not compile:\n${output.slice(-3000)}`);
  const failure = await firstFailure({ native, vitest });
  if (failure)
    throw new Error(
      `${failure.name} ${failure.how} without a fault:\n${failure.output.slice(-3000)}`,
    );
  checked.add(id);
}

async function outcomeOf(mutant, tests) {
  write(mutant.file, mutant.mutated);
  try {
    if (!(await build(...tests.native)).built) return { outcome: 'does not compile' };
    const failure = await firstFailure(tests);
    return failure
      ? { outcome: 'killed', by: `${failure.name} ${failure.how}` }
      : { outcome: 'survived' };
  } finally {
    write(mutant.file, original(mutant.file));
  }
}

async function main() {
  const until = Date.now() + Number(options.minutes) * 60_000;
  requireTools('g++', 'cmake', 'catch2');
  mkdirSync(DIRECTORY, { recursive: true });
  for (const file of files) original(file);
  await prepare();
  const queue = plan();
  say(`${queue.length} mutants to try`);
  for (const [index, mutant] of queue.entries()) {
    if (Date.now() > until) return say(`time is up: ${queue.length - index} mutants are left`);
    const tests = testsFor(mutant.file);
    await checkTests(tests);
    const result = await outcomeOf(mutant, tests);
    const { mutated: _, ...what } = mutant;
    appendFileSync(RESULTS, `${JSON.stringify({ ...what, ...result })}\n`);
    const { file, line, kind, before, after } = mutant;
    say(
      `${result.outcome}${result.by ? ` by ${result.by}` : ''}: ${file}:${line} ${kind}: ${before} -> ${after}`,
    );
  }
}

if (options.report) {
  const totals = new Map(files.map((file) => [file, mutantsOf(file, original(file)).length]));
  process.stdout.write(reportOf(readResults(), totals));
} else {
  await main();
}
