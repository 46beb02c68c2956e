// The initramfs of the emulated host: busybox, modules in load order, /init, and one job.

import { readFileSync } from 'node:fs';
import { CpioArchive } from './cpio.mjs';
import { ModuleTree } from './modules.mjs';

const APPLETS =
  'sh cat chmod chroot cp echo hostname ifconfig insmod kill ln mkdir mkfifo mount poweroff ps setsid sync usleep ['.split(
    ' ',
  );

// Loaded in this order. The vendor module apart, because it takes parameters, and KVM after the
// clock has settled (host-init.sh).
const MODULES = {
  base: [
    'virtio_pci',
    'virtio_console',
    '9pnet_virtio',
    '9p',
    'overlay',
    'tun',
    'vhost_net',
    'vhost_vsock',
  ],
  kvm: ['kvm', 'ccp'],
  'kvm-vendor': ['kvm_amd'],
};

/** Quotes for a POSIX shell. */
export const shellQuote = (text) => `'${String(text).replaceAll("'", "'\\''")}'`;

/** The part that is the same for every job. */
export function hostArchive({ host, busybox }) {
  const archive = new CpioArchive();
  for (const directory of ['dev', 'proc', 'sys', 'outer', 'newroot', 'scratch']) {
    archive.directory(directory);
  }
  archive.characterDevice('dev/console', 5, 1);
  archive.file('init', readFileSync(new URL('host-init.sh', import.meta.url)), 0o755);
  archive.file('bin/busybox', readFileSync(busybox), 0o755);
  for (const applet of APPLETS) archive.symlink(`bin/${applet}`, 'busybox');
  const tree = new ModuleTree(host.modules);
  const loaded = new Set();
  for (const [list, names] of Object.entries(MODULES)) {
    const modules = tree.loadOrder(names).filter(({ name }) => !loaded.has(name));
    for (const { name, data } of modules) {
      archive.file(`modules/${name}.ko`, data);
      loaded.add(name);
    }
    archive.file(`modules/${list}.list`, modules.map(({ name }) => `${name}\n`).join(''));
  }
  return archive.toBuffer();
}

/** What one job adds: where it finds its files, its environment, its command. */
export function jobArchive({ repository, share, environment, command, guest }) {
  const exports = Object.entries(environment).map(
    ([name, value]) => `export ${name}=${shellQuote(value)}`,
  );
  // Read from memory, as often as tests like: 9p is slow.
  const copies = ['vmlinux', 'bzImage'].map(
    (kind) => `cp ${shellQuote(guest[kind])} /run/kvmsnap/${kind}`,
  );
  const job = [
    ...exports,
    ...copies,
    `cd ${shellQuote(repository)} || exit 125`,
    `exec ${command.map(shellQuote).join(' ')}`,
  ];
  const env = [
    `KVMSNAP_HOST_REPOSITORY=${shellQuote(repository)}`,
    `KVMSNAP_HOST_SHARE=${shellQuote(share ?? '')}`,
  ];
  return new CpioArchive()
    .file('job.env', `${env.join('\n')}\n`)
    .file('job.sh', `${job.join('\n')}\n`)
    .toBuffer();
}
