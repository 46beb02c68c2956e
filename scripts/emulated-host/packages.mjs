// What the emulated host needs from Debian: a few commands, installed if they are missing, and
// packages that are only downloaded and unpacked (kernels, a static busybox).

import { spawnSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** Commands, and the package each is in. */
const COMMANDS = {
  'qemu-system-x86_64': 'qemu-system-x86',
  xz: 'xz-utils',
  lz4: 'lz4',
};

const isRoot = () => process.getuid() === 0;

function run(command, args, options = {}) {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' },
    maxBuffer: 64 * 1024 * 1024,
    ...options,
  });
  if (result.error?.code === 'ENOENT') {
    throw new Error(
      `${command} is missing: the emulated hardware host is made of Debian's packages, so it needs Debian`,
    );
  }
  if (result.error) throw result.error;
  return result;
}

function runOrThrow(command, args, options) {
  const result = run(command, args, options);
  if (result.status !== 0) {
    const tail = `${result.stdout}${result.stderr}`.trim().split('\n').slice(-15).join('\n');
    throw new Error(`${command} ${args.join(' ')} failed (${result.status}):\n${tail}`);
  }
  return result.stdout;
}

export function hasCommand(name) {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

// A fresh container has no package lists at all, and old lists name packages that are gone.
function withLists(action, log) {
  try {
    return action();
  } catch (error) {
    if (!isRoot()) {
      throw new Error(`${error.message}\nRun 'sudo apt-get update', then try again`);
    }
    log('apt-get update');
    runOrThrow('apt-get', ['update', '-qq']);
    return action();
  }
}

/** Installs the commands that are missing; as another user than root it says which, and how. */
export function ensureCommands(commands, log) {
  const missing = commands.filter((command) => !hasCommand(command));
  if (missing.length === 0) return;
  const packages = missing.map((command) => COMMANDS[command]);
  const install = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
  if (!isRoot()) {
    throw new Error(
      `${missing.join(', ')} missing: run 'sudo apt-get ${install.filter((a) => a !== '-qq').join(' ')}' and try again`,
    );
  }
  log(`apt-get install ${packages.join(' ')}`);
  withLists(() => runOrThrow('apt-get', install), log);
}

/** The package that a meta-package such as linux-image-amd64 stands for today. */
export function resolveMetaPackage(name, log) {
  return withLists(() => {
    const depends = runOrThrow('apt-cache', ['depends', '--no-recommends', name]);
    const match = /^\s*Depends: (linux-image-\S+)$/m.exec(depends);
    if (!match) throw new Error(`apt knows no kernel package behind ${name}`);
    return match[1];
  }, log);
}

/** Downloads a package and unpacks it into `directory`, without installing anything. */
export function unpackPackage(name, directory, log) {
  const download = mkdtempSync(`${directory}.deb-`);
  // As root, apt downloads as user _apt, who cannot write here, and then only warns.
  const unsandboxed = isRoot() ? ['-o', 'APT::Sandbox::User=root'] : [];
  try {
    log(`apt-get download ${name}`);
    withLists(
      () => runOrThrow('apt-get', ['download', '-qq', ...unsandboxed, name], { cwd: download }),
      log,
    );
    const archive = readdirSync(download).find((file) => file.endsWith('.deb'));
    if (!archive) throw new Error(`apt-get download ${name} left no package`);
    runOrThrow('dpkg', ['-x', join(download, archive), directory]);
  } finally {
    rmSync(download, { recursive: true, force: true });
  }
}
