import { chmodSync, chownSync, lchownSync, mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Exit } from '../../../lib/cli/exit.js';
import { buildProgram } from '../../../lib/cli/program.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { scratch } from './scratch.js';

const OTHER = 12_345;
const isRoot = process.getuid?.() === 0;

async function newStore(): Promise<{ above: string; path: string; store: SnapshotStore }> {
  const above = join(scratch(), 'above');
  mkdirSync(above, { mode: 0o755 });
  const path = join(above, 'store');
  return { above, path, store: await SnapshotStore.open(path, { create: true, durable: false }) };
}

describe('who else can change a store', () => {
  it('is nobody in a directory of the user, also below a temporary one', async () => {
    const { above, store } = await newStore();
    expect(store.exposure()).toEqual([]);
    chmodSync(above, 0o1777);
    expect(store.exposure()).toEqual([]);
  });

  it('is everybody who may write to it, or to what it lies in', async () => {
    const { above, path, store } = await newStore();
    chmodSync(above, 0o777);
    expect(store.exposure()).toEqual([`everybody may write to ${above}`]);
    chmodSync(above, 0o755);
    for (const part of ['', 'blobs', 'blobs/sha256', 'index.json']) {
      // In a store, also where only owners may remove.
      chmodSync(join(path, part), part === 'index.json' ? 0o666 : 0o1777);
      expect(store.exposure()).toEqual([`everybody may write to ${join(path, part)}`]);
      chmodSync(join(path, part), part === 'index.json' ? 0o600 : 0o700);
    }
    expect(store.exposure()).toEqual([]);
  });

  it.runIf(isRoot)('is the owner, and the group, of any part or link on the way', async () => {
    const { above, path, store } = await newStore();
    chownSync(above, 0, OTHER);
    chmodSync(above, 0o775);
    expect(store.exposure()).toEqual([`group ${OTHER} may write to ${above}`]);
    chownSync(above, OTHER, 0);
    chmodSync(above, 0o755);
    expect(store.exposure()).toEqual([`${above} belongs to user ${OTHER}`]);
    chownSync(above, 0, 0);
    const link = join(scratch(), 'link');
    symlinkSync(above, link);
    const linked = await SnapshotStore.open(join(link, 'store'));
    expect(linked.exposure()).toEqual([]);
    lchownSync(link, OTHER, OTHER);
    expect(linked.exposure()).toEqual([`${link} belongs to user ${OTHER}`]);
    lchownSync(link, 0, 0);
    chownSync(join(path, 'index.json'), OTHER, OTHER);
    expect(linked.exposure()).toContain(`${join(path, 'index.json')} belongs to user ${OTHER}`);
  });

  describe('is told by each command that has a store', () => {
    afterEach(() => void vi.restoreAllMocks());

    it.each([['list'], ['verify', 'x'], ['inspect', 'x'], ['gc']])('%s', async (...args) => {
      const { path } = await newStore();
      chmodSync(path, 0o777);
      let told = '';
      vi.spyOn(process.stdout, 'write').mockReturnValue(true);
      vi.spyOn(process.stderr, 'write').mockImplementation((data) => {
        told += data;
        return true;
      });
      const program = buildProgram(new Exit());
      await program.parseAsync([...args, '--store', path], { from: 'user' }).catch(() => undefined);
      vi.restoreAllMocks();
      expect(told).toContain(`kvmsnap: warning: everybody may write to ${path}: `);
    });
  });
});
