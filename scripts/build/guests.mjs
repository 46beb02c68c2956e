// Builds native/guest/*.S into build/guests/: static ELF64 files, and flat binaries for guests that
// start in real mode. Only what is older than its sources.
//
//   node scripts/build/guests.mjs [--force]
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compile, isStale, packageRoot } from './compile.mjs';

const sourceDirectory = path.join(packageRoot, 'native/guest');
const outputDirectory = path.join(packageRoot, 'build/guests');

/** Guests that start in 16-bit code are flat: no ELF loader gives them an entry below 64 KiB. */
const FLAT_LOAD_ADDRESS = { real: '0x8000' };

function linkArguments(name) {
  const at = FLAT_LOAD_ADDRESS[name];
  if (at) return ['-Wl,--oformat=binary', `-Wl,-Ttext=${at}`, `-Wl,-e,${at}`];
  return ['-Wl,-T,guest.ld', '-Wl,-z,max-page-size=4096'];
}

function build(name, output) {
  // Linked under another name and renamed: a build that is cut short leaves no half a guest.
  const partial = `${output}.${process.pid}`;
  try {
    compile(
      [
        '-m64',
        '-nostdlib',
        '-static',
        '-no-pie',
        '-Wl,--build-id=none',
        '-Wl,-z,noexecstack',
        ...linkArguments(name),
        '-o',
        partial,
        `${name}.S`,
      ],
      { cwd: sourceDirectory },
    );
    renameSync(partial, output);
  } finally {
    rmSync(partial, { force: true });
  }
}

export function buildGuests({ force = false } = {}) {
  const files = readdirSync(sourceDirectory).map((file) => path.join(sourceDirectory, file));
  const shared = files.filter((file) => /\.(h|inc|ld)$/.test(file));
  const script = fileURLToPath(import.meta.url);
  mkdirSync(outputDirectory, { recursive: true });
  let built = 0;
  for (const source of files.filter((file) => file.endsWith('.S'))) {
    const name = path.basename(source, '.S');
    const output = path.join(outputDirectory, name + (name in FLAT_LOAD_ADDRESS ? '.bin' : '.elf'));
    if (!force && !isStale(output, [source, script, ...shared])) continue;
    build(name, output);
    built += 1;
  }
  return built;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const built = buildGuests({ force: process.argv.includes('--force') });
    console.log(`guests: ${built === 0 ? 'up to date' : `built ${built}`} in build/guests`);
  } catch (error) {
    console.error(`guests: ${error.message}`);
    process.exitCode = 1;
  }
}
