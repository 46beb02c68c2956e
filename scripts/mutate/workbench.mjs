// A copy of the native sources, built outside of the tree, in which one file at a time is changed.

import { spawn } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { root } from '../native/cmake.mjs';

export const DIRECTORY = join(root, 'build-mutate');
const TREE = join(DIRECTORY, 'tree');
const BUILD = join(DIRECTORY, 'out');
const ADDON = join(BUILD, 'kvmsnap.node');

/** How many times as long as without a fault a test may take; less is said to hang. */
const PATIENCE = 8;
const LEAST_LIMIT_MS = 60_000;

/** Runs a command to its end, or until the limit, when it ends with all that it has started. */
function run(command, args, { env = {}, limitMs = 0 } = {}) {
  const child = spawn(command, args, {
    cwd: root,
    detached: true,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
    });
  }
  let late = false;
  const timer = limitMs
    ? setTimeout(() => {
        late = true;
        endGroup(child);
      }, limitMs)
    : undefined;
  const started = Date.now();
  return new Promise((resolve) => {
    const done = (status) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ status, output, late, ms: Date.now() - started });
    };
    child.on('error', ({ message }) => done(message));
    child.on('close', (code, signal) => done(signal ?? code));
  });
}

const running = new Set();
function endGroup(child) {
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended.
  }
}
process.on('exit', () => {
  for (const child of running) endGroup(child);
});
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

const contents = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : undefined);

/**
 * Copies what is different, with the time of now: what was built of a fault in a run that was stopped is then
 * built anew, and nothing else is.
 */
function copyDifferent(name) {
  const from = join(root, name);
  if (statSync(from).isDirectory()) {
    for (const entry of readdirSync(from)) copyDifferent(join(name, entry));
  } else if (contents(from) !== contents(join(TREE, name))) {
    mkdirSync(dirname(join(TREE, name)), { recursive: true });
    copyFileSync(from, join(TREE, name));
  }
}

/** The sources as they are now, without any fault, ready to be built. */
export async function prepare() {
  for (const name of ['native', 'cmake', 'CMakeLists.txt']) copyDifferent(name);
  const modules = join(TREE, 'node_modules');
  rmSync(modules, { force: true });
  symlinkSync(join(root, 'node_modules'), modules);
  const headers = join(process.execPath, '../../include/node');
  const { status, output } = await run('cmake', [
    ...['-S', TREE, '-B', BUILD, '-G', 'Ninja'],
    // Without optimisation and debugging information it compiles in a third of the time.
    '-DCMAKE_BUILD_TYPE=None',
    '-DCMAKE_CXX_FLAGS=-O0',
    ...['-DKVMSNAP_TESTS=ON', '-DKVMSNAP_ADDON=ON'],
    `-DCMAKE_JS_INC=${headers};${join(root, 'node_modules/node-addon-api')}`,
  ]);
  if (status !== 0) throw new Error(`cmake failed:\n${output.slice(-3000)}`);
}

/** Gives whether it compiles. */
export async function build(...targets) {
  const jobs = String(availableParallelism());
  const { status, output } = await run('ninja', ['-C', BUILD, '-j', jobs, ...targets]);
  return { built: status === 0, output };
}

const originals = new Map();
/** A file as it was when it was first asked for: who works on the sources meanwhile does not disturb. */
export function original(file) {
  if (!originals.has(file)) originals.set(file, readFileSync(join(root, file), 'utf8'));
  return originals.get(file);
}
export const write = (file, text) => writeFileSync(join(TREE, file), text);

const times = new Map();
const limitOf = (name) =>
  Math.max(LEAST_LIMIT_MS, PATIENCE * (times.get(name) ?? Number.POSITIVE_INFINITY));

/** Gives what failed, or undefined. The first time of each test is without a fault, and says how long it takes. */
async function judge(name, command, args, env) {
  const known = times.has(name);
  const { status, output, late, ms } = await run(command, args, {
    env,
    limitMs: known ? limitOf(name) : 0,
  });
  if (!known) times.set(name, ms);
  if (status === 0) return undefined;
  return { name, how: late ? 'hangs' : 'fails', output };
}

export function runNative(name) {
  return judge(name, join(BUILD, 'native/test', name), ['--abort']);
}

export function runVitest(file) {
  const args = [
    '--no-install',
    'vitest',
    'run',
    file,
    '--bail=1',
    '--reporter=dot',
    '--no-file-parallelism',
  ];
  // Faults show in few rounds, or are not this test's to find.
  return judge(file, 'npx', args, { KVMSNAP_ADDON: ADDON, KVMSNAP_ROUNDS: '0.05' });
}
