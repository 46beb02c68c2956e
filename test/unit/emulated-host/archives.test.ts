import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CpioArchive } from '../../../scripts/emulated-host/cpio.mjs';
import { ModuleTree, modinfo } from '../../../scripts/emulated-host/modules.mjs';
import { carveVmlinux } from '../../../scripts/emulated-host/vmlinux.mjs';

interface Entry {
  name: string;
  mode: number;
  rdev: [number, number];
  data: Buffer;
}

/** Reads newc as buffer-format.rst of the kernel describes it. */
function readNewc(archive: Buffer): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; at < archive.length; ) {
    expect(at % 4).toBe(0);
    expect(archive.toString('latin1', at, at + 6)).toBe('070701');
    const field = (index: number) =>
      Number.parseInt(archive.toString('latin1', at + 6 + index * 8, at + 14 + index * 8), 16);
    const size = field(6);
    const nameSize = field(11);
    const name = archive.toString('utf8', at + 110, at + 110 + nameSize - 1);
    const dataAt = Math.ceil((at + 110 + nameSize) / 4) * 4;
    entries.push({
      name,
      mode: field(1),
      rdev: [field(9), field(10)],
      data: archive.subarray(dataAt, dataAt + size),
    });
    at = Math.ceil((dataAt + size) / 4) * 4;
  }
  return entries;
}

describe('cpio', () => {
  test('has every kind of entry, parents before children, and the trailer last', () => {
    const entries = readNewc(
      new CpioArchive()
        .file('a/b/data', 'odd', 0o600)
        .symlink('a/link', 'b/data')
        .characterDevice('dev/console', 5, 1)
        .directory('empty', 0o700)
        .toBuffer(),
    );
    expect(entries.map(({ name }) => name)).toEqual([
      'a',
      'a/b',
      'a/b/data',
      'a/link',
      'dev',
      'dev/console',
      'empty',
      'TRAILER!!!',
    ]);
    const byName = new Map(entries.map((entry) => [entry.name, entry]));
    expect(byName.get('a')?.mode).toBe(0o040755);
    expect(byName.get('a/b/data')).toMatchObject({ mode: 0o100600, data: Buffer.from('odd') });
    expect(byName.get('a/link')).toMatchObject({ mode: 0o120777, data: Buffer.from('b/data') });
    expect(byName.get('dev/console')).toMatchObject({ mode: 0o020600, rdev: [5, 1] });
    expect(byName.get('empty')?.mode).toBe(0o040700);
  });

  test('a directory that is named after a file in it keeps its own mode', () => {
    const archive = new CpioArchive().file('d/f', 'x').directory('d', 0o700).toBuffer();
    const entries = readNewc(archive).filter(({ name }) => name === 'd');
    expect(entries.map(({ mode }) => mode)).toEqual([0o040700]);
  });

  test.each(['../x', 'a/../../x', '/', ''])('refuses the path %j', (path) => {
    expect(() => new CpioArchive().file(path, '')).toThrow(/not a path inside the archive/);
  });
});

const SETUP_SECTORS = 1;
const PAYLOAD_AT = (SETUP_SECTORS + 1) * 512 + 0x40;

function elfKernel(): Buffer {
  const elf = Buffer.alloc(4096, 0xab);
  Buffer.from('7f454c460201', 'hex').copy(elf);
  elf.writeUInt16LE(62, 18);
  return elf;
}

function bzImageOf(payload: Buffer): Buffer {
  const image = Buffer.alloc(PAYLOAD_AT + payload.length);
  image.writeUInt8(SETUP_SECTORS, 0x1f1);
  image.write('HdrS', 0x202, 'latin1');
  image.writeUInt16LE(0x20f, 0x206);
  image.writeUInt32LE(0x40, 0x248);
  image.writeUInt32LE(payload.length, 0x24c);
  payload.copy(image, PAYLOAD_AT);
  return image;
}

describe('carving vmlinux', () => {
  test('unpacks the payload that the setup header points to', () => {
    expect(carveVmlinux(bzImageOf(gzipSync(elfKernel())))).toEqual(elfKernel());
  });

  test('refuses a payload outside the file', () => {
    const image = bzImageOf(gzipSync(elfKernel()));
    image.writeUInt32LE(image.length, 0x24c);
    expect(() => carveVmlinux(image)).toThrow(/outside the file/);
  });

  test('refuses what is no kernel', () => {
    expect(() => carveVmlinux(Buffer.alloc(0x1000))).toThrow(/HdrS/);
    expect(() => carveVmlinux(Buffer.alloc(16))).toThrow(/only 16 bytes/);
    expect(() => carveVmlinux(bzImageOf(gzipSync(Buffer.alloc(100))))).toThrow(/not an x86-64 ELF/);
    expect(() => carveVmlinux(bzImageOf(Buffer.alloc(64, 0x11)))).toThrow(/unknown compression/);
  });
});

/** The least ELF64 that has a .modinfo section: header, names, .modinfo, three section headers. */
function moduleWith(info: string[]): Buffer {
  const names = Buffer.from('\0.shstrtab\0.modinfo\0');
  const text = Buffer.from(info.map((line) => `${line}\0`).join(''));
  const table = 64 + names.length + text.length;
  const elf = Buffer.alloc(table + 3 * 64);
  elf.writeBigUInt64LE(BigInt(table), 0x28);
  elf.writeUInt16LE(64, 0x3a);
  elf.writeUInt16LE(3, 0x3c);
  elf.writeUInt16LE(1, 0x3e);
  names.copy(elf, 64);
  text.copy(elf, 64 + names.length);
  const section = (index: number, name: number, offset: number, size: number) => {
    elf.writeUInt32LE(name, table + index * 64);
    elf.writeBigUInt64LE(BigInt(offset), table + index * 64 + 0x18);
    elf.writeBigUInt64LE(BigInt(size), table + index * 64 + 0x20);
  };
  section(1, 1, 64, names.length);
  section(2, 11, 64 + names.length, text.length);
  return elf;
}

describe('kernel modules', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvmsnap-modules-'));
    mkdirSync(join(directory, 'kernel/drivers'), { recursive: true });
    writeFileSync(join(directory, 'modules.builtin'), 'kernel/lib/crc-core.ko\n');
    const add = (name: string, depends: string) =>
      writeFileSync(
        join(directory, 'kernel/drivers', `${name}.ko`),
        moduleWith(['license=GPL', `depends=${depends}`]),
      );
    add('kvm-amd', 'kvm,ccp');
    add('kvm', 'irqbypass,crc_core');
    add('irqbypass', '');
    add('ccp', '');
    add('lonely', 'absent');
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  test('come after what they need, once each, without those built in', () => {
    const order = new ModuleTree(directory).loadOrder(['kvm', 'kvm_amd', 'crc-core']);
    expect(order.map(({ name }) => name)).toEqual(['irqbypass', 'kvm', 'ccp', 'kvm_amd']);
    expect(modinfo(order[0]!.data)).toContain('license=GPL');
  });

  test('an unknown module or dependency is named', () => {
    const tree = new ModuleTree(directory);
    expect(() => tree.loadOrder(['nonesuch'])).toThrow(/no module nonesuch \(asked for\)/);
    expect(() => tree.loadOrder(['lonely'])).toThrow(/no module absent \(needed by lonely\)/);
  });
});
