// Finds kernel modules by name, and the order to load them in. Debian's kernel packages come without
// modules.dep (depmod runs when they are installed, which they are not here), so the
// dependencies are read from where depmod gets them: each module's .modinfo section.

import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const MODULE_FILE = /^(.+)\.ko(\.xz|\.zst|\.gz)?$/;
const DECOMPRESSORS = { '.xz': 'xz', '.zst': 'zstd', '.gz': 'gzip' };

// The kernel treats '-' and '_' in module names alike.
const canonical = (name) => name.replaceAll('-', '_');

/** The `.modinfo` strings (`key=value`) of a module, an ELF64 file of section headers. */
export function modinfo(elf) {
  const tableOffset = Number(elf.readBigUInt64LE(0x28));
  const entrySize = elf.readUInt16LE(0x3a);
  const count = elf.readUInt16LE(0x3c);
  const section = (index) => {
    const at = tableOffset + index * entrySize;
    const offset = Number(elf.readBigUInt64LE(at + 0x18));
    const size = Number(elf.readBigUInt64LE(at + 0x20));
    return { name: elf.readUInt32LE(at), bytes: elf.subarray(offset, offset + size) };
  };
  const names = section(elf.readUInt16LE(0x3e)).bytes;
  for (let index = 0; index < count; index++) {
    const { name, bytes } = section(index);
    if (names.toString('latin1', name, names.indexOf(0, name)) === '.modinfo') {
      return bytes.toString('utf8').split('\0').filter(Boolean);
    }
  }
  throw new Error('a kernel module has no .modinfo section');
}

function readModule(path) {
  const suffix = MODULE_FILE.exec(basename(path))[2];
  if (suffix === undefined) return readFileSync(path);
  const run = spawnSync(DECOMPRESSORS[suffix], ['-dc', path], { maxBuffer: 64 * 1024 * 1024 });
  if (run.status !== 0) throw new Error(`cannot unpack ${path}: ${run.error ?? run.stderr}`);
  return run.stdout;
}

/** The modules of one kernel: `/lib/modules/<version>` of its package. */
export class ModuleTree {
  #paths = new Map();
  #builtin = new Set();

  constructor(directory) {
    this.directory = directory;
    const kernel = join(directory, 'kernel');
    for (const entry of readdirSync(kernel, { recursive: true, withFileTypes: true })) {
      const match = entry.isFile() ? MODULE_FILE.exec(entry.name) : null;
      if (match) this.#paths.set(canonical(match[1]), join(entry.parentPath, entry.name));
    }
    for (const line of readFileSync(join(directory, 'modules.builtin'), 'utf8').split('\n')) {
      const match = MODULE_FILE.exec(basename(line));
      if (match) this.#builtin.add(canonical(match[1]));
    }
  }

  /**
   * `{ name, data }` of the named modules and all they depend on, each after what it needs.
   * Modules that are built into the kernel are left out.
   */
  loadOrder(names) {
    const done = new Map();
    const visit = (name, neededBy) => {
      if (done.has(name) || this.#builtin.has(name)) return;
      const path = this.#paths.get(name);
      if (!path) {
        throw new Error(`the kernel of ${this.directory} has no module ${name} (${neededBy})`);
      }
      const data = readModule(path);
      const depends = modinfo(data).find((entry) => entry.startsWith('depends='));
      for (const dependency of depends.slice('depends='.length).split(',').filter(Boolean)) {
        visit(canonical(dependency), `needed by ${name}`);
      }
      done.set(name, data);
    };
    for (const name of names) visit(canonical(name), 'asked for');
    return [...done].map(([name, data]) => ({ name, data }));
  }
}
