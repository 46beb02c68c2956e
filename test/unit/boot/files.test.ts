import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { packInitrd, readInitrd, readKernelFile } from '../../../lib/boot/index.js';
import { major, minor } from '../../../lib/boot/initrd/pack.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'kvmsnap-initrd-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function succeeds(command: string, args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** GNU cpio where it is installed; other tests read the archive without it. */
const hasCpio = succeeds('cpio', ['--version']);
/** Needs CAP_MKNOD; how numbers are split is tested without. */
const canMakeNodes = (() => {
  const probe = join(mkdtempSync(join(tmpdir(), 'kvmsnap-mknod-')), 'null');
  const made = succeeds('mknod', [probe, 'c', '1', '3']);
  rmSync(dirname(probe), { recursive: true });
  return made;
})();

interface Entry {
  inode: number;
  mode: number;
  uid: number;
  links: number;
  device: [number, number];
  data: Buffer;
}

/** Reads a newc archive by its specification (early-userspace/buffer-format.rst). */
function readCpio(archive: Uint8Array): Map<string, Entry> {
  const bytes = Buffer.from(archive);
  const entries = new Map<string, Entry>();
  const pad = (value: number): number => (value + 3) & ~3;
  for (let at = 0; ; ) {
    expect(bytes.subarray(at, at + 6).toString()).toBe('070701');
    const field = (index: number): number =>
      Number.parseInt(bytes.subarray(at + 6 + index * 8, at + 14 + index * 8).toString(), 16);
    const nameEnd = at + 110 + field(11);
    const name = bytes.subarray(at + 110, nameEnd - 1).toString();
    expect(bytes[nameEnd - 1]).toBe(0);
    const data = pad(nameEnd);
    if (name === 'TRAILER!!!') return entries;
    entries.set(name, {
      inode: field(0),
      mode: field(1),
      uid: field(2),
      links: field(4),
      device: [field(9), field(10)],
      data: bytes.subarray(data, data + field(6)),
    });
    at = pad(data + field(6));
  }
}

function fill(): void {
  mkdirSync(join(root, 'bin'));
  writeFileSync(join(root, 'bin', 'busybox'), 'binary of some length');
  chmodSync(join(root, 'bin', 'busybox'), 0o755);
  linkSync(join(root, 'bin', 'busybox'), join(root, 'bin', 'sh'));
  symlinkSync('bin/busybox', join(root, 'init'));
  mkdirSync(join(root, 'secret'), { mode: 0o700 });
  writeFileSync(join(root, 'secret', 'empty'), '');
  writeFileSync(join(root, 'naïve'), 'ünïcode');
}

describe('packInitrd', () => {
  it('keeps types, modes, content and links', async () => {
    fill();
    const entries = readCpio(await packInitrd(root));
    expect([...entries.keys()]).toEqual([
      'bin',
      'bin/busybox',
      'bin/sh',
      'init',
      'naïve',
      'secret',
      'secret/empty',
    ]);
    expect(entries.get('bin')!.mode & 0o170000).toBe(0o040000);
    expect(entries.get('secret')!.mode).toBe(0o040700);
    expect(entries.get('init')).toMatchObject({ mode: 0o120777, data: Buffer.from('bin/busybox') });
    expect(entries.get('naïve')!.data.toString()).toBe('ünïcode');
    const [first, last] = [entries.get('bin/busybox')!, entries.get('bin/sh')!];
    expect(first).toMatchObject({ mode: 0o100755, links: 2, inode: last.inode });
    expect(first.data.length).toBe(0);
    expect(last.data.toString()).toBe('binary of some length');
    expect([...entries.values()].every(({ uid }) => uid === 0)).toBe(true);
  });

  it('gives the same bytes for the same content at another time and place', async () => {
    fill();
    const archive = await packInitrd(root);
    expect(archive.length % 512).toBe(0);
    const first = root;
    root = mkdtempSync(join(tmpdir(), 'kvmsnap-initrd-'));
    fill();
    utimesSync(join(root, 'naïve'), 1, 1);
    expect(Buffer.compare(archive, await packInitrd(root))).toBe(0);
    rmSync(first, { recursive: true });
  });

  it('splits device numbers as the kernel joins them', () => {
    const split = (device: bigint) => [major(device), minor(device)];
    expect(split(lstatSync('/dev/null', { bigint: true }).rdev)).toEqual([1, 3]);
    expect(split(lstatSync('/dev/tty', { bigint: true }).rdev)).toEqual([5, 0]);
    // makedev(0x12345, 0x6789a)
    expect(split(0x0001_2000_6783_459an)).toEqual([0x12345, 0x6789a]);
  });

  it.skipIf(!canMakeNodes)('takes device nodes as nodes', async () => {
    execFileSync('mknod', [join(root, 'null'), 'c', '1', '3']);
    const entry = readCpio(await packInitrd(root)).get('null')!;
    expect(entry).toMatchObject({ device: [1, 3], data: Buffer.alloc(0) });
    expect(entry.mode & 0o170000).toBe(0o020000);
  });

  it('refuses a name that would end the archive, and says what it cannot read', async () => {
    writeFileSync(join(root, 'TRAILER!!!'), '');
    await expect(packInitrd(root)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(packInitrd(join(root, 'missing'))).rejects.toMatchObject({
      code: 'ERR_SYSTEM',
      errno: 2,
      syscall: 'scandir',
    });
  });
});

describe.skipIf(!hasCpio)('packInitrd and cpio(1)', () => {
  it('extracts to the same tree', async () => {
    fill();
    const out = mkdtempSync(join(tmpdir(), 'kvmsnap-cpio-'));
    try {
      execFileSync('cpio', ['-idm', '--quiet', '--no-preserve-owner'], {
        cwd: out,
        input: await packInitrd(root),
      });
      expect(readFileSync(join(out, 'bin/busybox'), 'utf8')).toBe('binary of some length');
      expect(lstatSync(join(out, 'bin/sh')).ino).toBe(lstatSync(join(out, 'bin/busybox')).ino);
      expect(lstatSync(join(out, 'bin/sh')).mode & 0o777).toBe(0o755);
      expect(readlinkSync(join(out, 'init'))).toBe('bin/busybox');
      expect(readFileSync(join(out, 'naïve'), 'utf8')).toBe('ünïcode');
      expect(lstatSync(join(out, 'secret')).mode & 0o777).toBe(0o700);
    } finally {
      rmSync(out, { recursive: true });
    }
  });
});

describe('reading files', () => {
  it('gives the bytes of a kernel', async () => {
    writeFileSync(join(root, 'k'), 'kernel');
    expect(Buffer.from(await readKernelFile(join(root, 'k'))).toString()).toBe('kernel');
  });

  it('refuses a directory or a FIFO without waiting, and names a missing file', async () => {
    await expect(readKernelFile(root)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    execFileSync('mkfifo', [join(root, 'fifo')]);
    await expect(readKernelFile(join(root, 'fifo'))).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
    await expect(readKernelFile(join(root, 'nothing'))).rejects.toMatchObject({
      code: 'ERR_SYSTEM',
      errno: 2,
      syscall: 'open',
      message: expect.stringContaining('nothing'),
    });
  });

  it('takes an initrd from a file, or packs a directory', async () => {
    fill();
    const packed = await readInitrd(root);
    expect(readCpio(packed).has('bin/sh')).toBe(true);
    writeFileSync(join(root, 'archive'), packed);
    expect(Buffer.compare(packed, await readInitrd(join(root, 'archive')))).toBe(0);
    await expect(readInitrd(join(root, 'nothing'))).rejects.toMatchObject({ code: 'ERR_SYSTEM' });
  });
});
