#!/usr/bin/env node
// Makes an initrd for a Linux guest in a test: busybox with all its commands, an /init script, files,
// kernel modules with their dependencies.
//
//   node scripts/emulated-host/guest-initrd.mjs --output FILE (--init FILE | --init-text TEXT)
//        [--file GUEST_PATH=FILE]... [--module NAME]... [--uncompressed]

import { spawnSync } from 'node:child_process';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { CpioArchive } from './cpio.mjs';
import { isMain } from './entry.mjs';
import { ensureKernels, guestKernel } from './kernels.mjs';
import { ModuleTree } from './modules.mjs';

/** Loads the modules of the initrd, in order. Debian's kernels have all of virtio-mmio as modules. */
const LOAD_MODULES = `#!/bin/sh
while read -r module; do
  insmod "/lib/modules/$module.ko" || echo "load-modules: $module failed"
done < /lib/modules/load.list
`;

function appletsOf(busybox) {
  const { stdout, status, error } = spawnSync(busybox, ['--list'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${busybox} --list failed: ${error ?? status}`);
  return stdout.split('\n').filter((name) => name !== '' && name !== 'busybox');
}

function addFile(archive, guestPath, content) {
  if (typeof content === 'string' || ArrayBuffer.isView(content)) {
    archive.file(guestPath, content);
    return;
  }
  const mode = content.mode ?? (content.path ? statSync(content.path).mode & 0o777 : 0o644);
  archive.file(guestPath, content.path ? readFileSync(content.path) : content.data, mode);
}

/**
 * The initrd as bytes. Inside: /bin/busybox and its commands, mount points /dev /proc /sys /tmp
 * /run /mnt /root, /dev/console, and with modules `/bin/load-modules`.
 *
 * @param options.init text of the /init script; it starts with a `#!` line and runs as PID 1
 * @param options.files guest path -> text, bytes, `{ path }` (a file here) or `{ data, mode }`
 * @param options.modules names of modules of the guest kernel; what they need is added
 * @param options.gzip compress (default false: the guest unpacks it quicker, in emulation above all)
 */
export function buildGuestInitrd({ init, files = {}, modules = [], gzip = false }) {
  if (!init?.startsWith('#!')) throw new Error('an /init script starts with a #! line');
  const { busybox } = ensureKernels();
  const archive = new CpioArchive();
  for (const directory of ['dev', 'proc', 'sys', 'tmp', 'run', 'mnt', 'root', 'etc']) {
    archive.directory(directory);
  }
  archive.characterDevice('dev/console', 5, 1);
  archive.file('bin/busybox', readFileSync(busybox), 0o755);
  for (const applet of appletsOf(busybox)) archive.symlink(`bin/${applet}`, 'busybox');
  archive.symlink('sbin', 'bin');
  if (modules.length > 0) {
    const ordered = new ModuleTree(guestKernel().modules).loadOrder(modules);
    for (const { name, data } of ordered) archive.file(`lib/modules/${name}.ko`, data);
    archive.file('lib/modules/load.list', ordered.map(({ name }) => `${name}\n`).join(''));
    archive.file('bin/load-modules', LOAD_MODULES, 0o755);
  }
  for (const [path, content] of Object.entries(files)) addFile(archive, path, content);
  archive.file('init', init, 0o755);
  const bytes = archive.toBuffer();
  return gzip ? gzipSync(bytes) : bytes;
}

function main() {
  const { values } = parseArgs({
    options: {
      output: { type: 'string' },
      init: { type: 'string' },
      'init-text': { type: 'string' },
      file: { type: 'string', multiple: true, default: [] },
      module: { type: 'string', multiple: true, default: [] },
      uncompressed: { type: 'boolean', default: false },
    },
  });
  if (!values.output || (values.init === undefined) === (values['init-text'] === undefined)) {
    throw new Error('needs --output FILE, and one of --init FILE and --init-text TEXT');
  }
  const files = {};
  for (const pair of values.file) {
    const split = pair.indexOf('=');
    if (split < 1) throw new Error(`--file takes GUEST_PATH=FILE, not "${pair}"`);
    files[pair.slice(0, split)] = { path: pair.slice(split + 1) };
  }
  const init = values['init-text'] ?? readFileSync(values.init, 'utf8');
  const initrd = buildGuestInitrd({
    init,
    files,
    modules: values.module,
    gzip: !values.uncompressed,
  });
  writeFileSync(values.output, initrd);
}

if (isMain(import.meta.url)) {
  try {
    main();
  } catch (error) {
    process.stderr.write(`guest-initrd: ${error.message}\n`);
    process.exitCode = 1;
  }
}
