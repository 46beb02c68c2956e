#!/usr/bin/env node
// Runs tests again and again beside busy loops, and says which failed in which round.
//
//   node scripts/test/under-load.mjs [--rounds N] [--loops N] [vitest arguments, such as a file's name]
//   node scripts/test/under-load.mjs [--rounds N] [--loops N] -- COMMAND [ARGUMENT...]
//
// Without arguments: every tier where it can run, as scripts/test/all.mjs does. Three rounds; three loops for
// each processor. A command is judged by its exit status, and by lines that begin with FAILED.
//
// The loops are threads of this process: whatever ends it ends them.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { failedTests, reportRounds } from './rounds.mjs';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const ALL = fileURLToPath(new URL('./all.mjs', import.meta.url));
const LOOPS_PER_PROCESSOR = 3;

const say = (text) => process.stderr.write(`under load: ${text}\n`);

function usage(problem) {
  say(`${problem}. Usage: under-load.mjs [--rounds N] [--loops N] [FILE...] [-- COMMAND...]`);
  process.exit(2);
}

/** What comes after `--` is a command; what comes before are options, and arguments for vitest. */
function readArguments(argv) {
  const end = argv.indexOf('--');
  const command = end < 0 ? [] : argv.slice(end + 1);
  const { values, positionals } = parseArgs({
    args: end < 0 ? argv : argv.slice(0, end),
    allowPositionals: true,
    options: { rounds: { type: 'string' }, loops: { type: 'string' } },
  });
  const number = (name, otherwise) => {
    const value = values[name] === undefined ? otherwise : Number(values[name]);
    if (!Number.isInteger(value) || value < 0) usage(`--${name} takes a whole number`);
    return value;
  };
  if (end >= 0 && command.length === 0) usage('no command after --');
  if (command.length > 0 && positionals.length > 0) usage('names of files, or a command, not both');
  const loops = number('loops', availableParallelism() * LOOPS_PER_PROCESSOR);
  return { rounds: number('rounds', 3), loops, files: positionals, command };
}

/** Busy loops that neither keep this process alive nor outlive it. */
function startLoops(count) {
  for (let i = 0; i < count; i++) new Worker('for (;;) {}', { eval: true }).unref();
}

let running;
/** Runs a command to its end; gives its exit status and, where it is caught, its standard output. */
function run(command, args, catchOutput) {
  const stdio = ['ignore', catchOutput ? 'pipe' : 'inherit', 'inherit'];
  running = spawn(command, args, { cwd: REPOSITORY, stdio });
  let output = '';
  running.stdout?.on('data', (data) => {
    output += data;
    process.stdout.write(data);
  });
  return new Promise((resolve) => {
    running.on('error', ({ message }) => resolve({ status: message, output }));
    running.on('close', (code, signal) => resolve({ status: signal ?? code, output }));
  });
}

async function runFiles(files) {
  const directory = mkdtempSync(join(tmpdir(), 'kvmsnap-under-load-'));
  try {
    const report = join(directory, 'report.json');
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
    const args = ['--no-install', 'vitest', 'run', ...files, ...reporters];
    const { status } = await run('npx', args, false);
    const { testResults } = JSON.parse(readFileSync(report, 'utf8'));
    const failed = failedTests(testResults, (name) => relative(REPOSITORY, name));
    return status === 0 || failed.length > 0 ? failed : [`vitest: ended with ${status}`];
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function runCommand([command, ...args]) {
  const { status, output } = await run(command, args, true);
  const failed = output.split('\n').flatMap((line) => /^FAILED (.*)$/.exec(line)?.slice(1) ?? []);
  return status === 0 || failed.length > 0 ? failed : [`${command}: ended with ${status}`];
}

let stopped = false;
const { rounds, loops, files, command } = readArguments(process.argv.slice(2));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  // The loops end with this process, which ends when what it runs has.
  process.on(signal, () => {
    stopped = true;
    running?.kill(signal);
  });
}

startLoops(loops);
const failures = [];
for (let round = 1; round <= rounds && !stopped; round++) {
  say(`round ${round} of ${rounds}, beside ${loops} busy loops`);
  const whole = [process.execPath, ALL];
  failures.push(
    files.length > 0
      ? await runFiles(files)
      : await runCommand(command.length > 0 ? command : whole),
  );
}
process.stdout.write(reportRounds(failures));
process.exit(stopped || failures.some((failed) => failed.length > 0) ? 1 : 0);
