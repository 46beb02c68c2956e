// Compiles scripts/bench/floor/ into build/floor: what KVM itself costs, for benchmarks to be
// compared with. Only if it is older than its sources.
//
//   node scripts/bench/build-floor.mjs && build/floor --help
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compile, isStale, packageRoot } from '../build/compile.mjs';

const output = path.join(packageRoot, 'build/floor');
const guestDirectory = path.join(packageRoot, 'native/guest');
const sourceDirectory = path.join(packageRoot, 'scripts/bench/floor');

/** Builds the floor program if need be, and returns its path. */
export function buildFloor() {
  const files = readdirSync(sourceDirectory).map((file) => path.join(sourceDirectory, file));
  const guest = ['abi.h', 'touch.S'].map((file) => path.join(guestDirectory, file));
  if (!isStale(output, [...files, ...guest])) return output;
  mkdirSync(path.dirname(output), { recursive: true });
  const partial = `${output}.${process.pid}`;
  try {
    const sources = files.filter((file) => /\.[cS]$/.test(file));
    const warnings = ['-Wall', '-Wextra'];
    const flags = ['-std=gnu11', '-O2', '-pthread', `-I${guestDirectory}`, ...warnings];
    compile([...flags, '-o', partial, ...sources]);
    renameSync(partial, output);
  } finally {
    rmSync(partial, { force: true });
  }
  return output;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(path.relative(process.cwd(), buildFloor()));
  } catch (error) {
    console.error(`floor: ${error.message}`);
    process.exitCode = 1;
  }
}
