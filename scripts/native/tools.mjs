// The tools of the development build that npm does not install: they are Debian packages.

import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

const onPath = (name) =>
  (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });

const compiles = (header) => {
  const args = ['-x', 'c++', '-std=c++20', '-fsyntax-only', '-include', header, '/dev/null'];
  return spawnSync('g++', args, { stdio: 'ignore' }).status === 0;
};

const TOOLS = {
  cmake: { package: 'cmake', isThere: () => onPath('cmake') },
  make: { package: 'make', isThere: () => onPath('make') || onPath('ninja') },
  'g++': { package: 'g++', isThere: () => onPath('g++') },
  catch2: {
    package: 'catch2',
    isThere: () => compiles('catch2/catch.hpp') || compiles('catch2/catch_all.hpp'),
  },
  'clang-format': { package: 'clang-format', isThere: () => onPath('clang-format') },
  'clang-tidy': { package: 'clang-tidy', isThere: () => onPath('clang-tidy') },
};

const aptGet = (...args) => {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const result = spawnSync('apt-get', ['-qq', ...args], { stdio: 'inherit', env });
  if (result.status !== 0) throw new Error(`apt-get ${args.join(' ')} failed`);
};

/**
 * Throws an error that says which packages to install, unless all tools are there. In CI (`CI=true`,
 * as root) it installs them instead, and says so.
 */
export function requireTools(...names) {
  const missing = names.filter((name) => !TOOLS[name].isThere());
  if (missing.length === 0) return;
  const packages = missing.map((name) => TOOLS[name].package);
  if (process.env.CI !== 'true' || process.getuid() !== 0) {
    throw new Error(
      `missing: ${missing.join(', ')}. Install with: apt-get install ${packages.join(' ')}`,
    );
  }
  console.log(`CI: installing ${packages.join(' ')} with apt-get`);
  aptGet('update');
  aptGet('install', '-y', '--no-install-recommends', ...packages);
  const still = missing.filter((name) => !TOOLS[name].isThere());
  if (still.length > 0) throw new Error(`still missing after installation: ${still.join(', ')}`);
}
