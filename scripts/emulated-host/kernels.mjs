#!/usr/bin/env node
// Debian's kernels for tests: the one that runs inside QEMU as a host, and the one that kvmsnap
// boots as a guest. Downloaded and unpacked, never installed.
//
//   node scripts/emulated-host/kernels.mjs [--json] [--refresh]

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CACHE, cachedDirectory } from './cache.mjs';
import { isMain } from './entry.mjs';
import { ensureCommands, resolveMetaPackage, unpackPackage } from './packages.mjs';
import { carveVmlinux } from './vmlinux.mjs';

/** The host's kernel has 9p and kvm_amd; the guest's, the cloud flavour, is small and quick. */
const META_PACKAGES = { host: 'linux-image-amd64', guest: 'linux-image-cloud-amd64' };
const CURRENT = join(CACHE, 'current.json');

function unpackKernel(packageName, log) {
  return cachedDirectory(packageName, (directory) => {
    unpackPackage(packageName, directory, log);
    const boot = join(directory, 'boot');
    const bzImage = readdirSync(boot).find((file) => file.startsWith('vmlinuz-'));
    if (!bzImage) throw new Error(`package ${packageName} has no /boot/vmlinuz-*`);
    writeFileSync(join(boot, 'vmlinux'), carveVmlinux(readFileSync(join(boot, bzImage))));
  });
}

function describeKernel(directory) {
  const boot = join(directory, 'boot');
  const bzImage = readdirSync(boot).find((file) => file.startsWith('vmlinuz-'));
  const version = bzImage.slice('vmlinuz-'.length);
  // Debian moved /lib into /usr/lib within the packages too.
  const modules = ['lib/modules', 'usr/lib/modules']
    .map((parent) => join(directory, parent, version))
    .find((candidate) => existsSync(candidate));
  if (!modules) throw new Error(`${directory} has no modules for kernel ${version}`);
  return {
    version,
    vmlinux: join(boot, 'vmlinux'),
    bzImage: join(boot, bzImage),
    config: join(boot, `config-${version}`),
    modules,
  };
}

// Which kernels are current is asked of apt once, not at every run: the answer is slow, needs
// package lists, and would change the kernel under somebody who bisects.
function currentPackages(refresh, log) {
  if (!refresh && existsSync(CURRENT)) return JSON.parse(readFileSync(CURRENT, 'utf8'));
  const packages = {};
  for (const [role, meta] of Object.entries(META_PACKAGES)) {
    packages[role] = resolveMetaPackage(meta, log);
  }
  mkdirSync(CACHE, { recursive: true });
  const scratch = `${CURRENT}.${process.pid}`;
  writeFileSync(scratch, `${JSON.stringify(packages, null, 2)}\n`);
  renameSync(scratch, CURRENT);
  return packages;
}

/** Fetches what is not cached, and returns the paths of both kernels and of a static busybox. */
export function ensureKernels({ refresh = false, log = () => {} } = {}) {
  ensureCommands(['xz', 'lz4'], log);
  const packages = currentPackages(refresh, log);
  const busybox = cachedDirectory('busybox-static', (directory) =>
    unpackPackage('busybox-static', directory, log),
  );
  return {
    host: describeKernel(unpackKernel(packages.host, log)),
    guest: describeKernel(unpackKernel(packages.guest, log)),
    busybox: ['bin/busybox', 'usr/bin/busybox']
      .map((path) => join(busybox, path))
      .find((path) => existsSync(path)),
  };
}

/**
 * The kernel that tests boot as a guest. Inside the emulated host its files lie in memory, where
 * the environment says; elsewhere they are in the cache, fetched if need be.
 */
export function guestKernel(options) {
  const { guest } = ensureKernels(options);
  const env = process.env;
  return {
    ...guest,
    vmlinux: env.KVMSNAP_GUEST_VMLINUX ?? guest.vmlinux,
    bzImage: env.KVMSNAP_GUEST_BZIMAGE ?? guest.bzImage,
    modules: env.KVMSNAP_GUEST_MODULES ?? guest.modules,
  };
}

function main() {
  const { values } = parseArgs({
    options: { json: { type: 'boolean' }, refresh: { type: 'boolean' } },
  });
  const kernels = ensureKernels({
    refresh: values.refresh ?? false,
    log: (line) => process.stderr.write(`kernels: ${line}\n`),
  });
  if (values.json) {
    process.stdout.write(`${JSON.stringify(kernels, null, 2)}\n`);
    return;
  }
  for (const role of ['host', 'guest']) {
    for (const [name, path] of Object.entries(kernels[role])) {
      process.stdout.write(`${role} ${name.padEnd(8)} ${path}\n`);
    }
  }
  process.stdout.write(`busybox ${kernels.busybox}\n`);
}

if (isMain(import.meta.url)) main();
