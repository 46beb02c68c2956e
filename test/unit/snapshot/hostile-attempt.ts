/** What happens to whoever opens a hostile store. */
import { rmSync } from 'node:fs';
import { expect, it } from 'vitest';
import { KvmsnapError } from '../../../lib/errors.js';
import type { LoadedSnapshot } from '../../../lib/snapshot/load.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { type Json, type Pieces, type Spoil, writeStore } from './hostile-store.js';

/** A store to refuse: its pieces, and what to spoil after digests were made to fit. */
export type Case = () => Pieces | [Pieces, Spoil];

export function itRefuses(cases: Record<string, Case>): void {
  it.each(Object.keys(cases))('%s', async (name) => {
    const made = (cases[name] as Case)();
    const [pieces, spoil] = Array.isArray(made) ? made : [made, {}];
    expect(await attempt(writeStore(pieces, spoil))).toMatch(REFUSED);
    // Nothing has reached the prototype of all objects.
    expect(({} as Json).x).toBeUndefined();
  });
}

/** Opens, loads and verifies: the code of the refusal, or the digest of what was accepted. */
export async function attempt(dir: string, ref = 'sample'): Promise<string> {
  try {
    const store = await SnapshotStore.open(dir);
    await store.list();
    const loaded = await store.load(ref);
    try {
      requireSound(loaded);
    } finally {
      loaded.close();
    }
    await store.verify(ref);
    return loaded.digest;
  } catch (error) {
    if (error instanceof KvmsnapError) return error.code;
    throw error;
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

export const REFUSED = /^ERR_SNAPSHOT_(FORMAT|CORRUPT|MISSING|INCOMPATIBLE)$/;

/** Whatever is accepted must be safe to hand to mmap and to KVM. */
function requireSound({ regions, extents, files, state }: LoadedSnapshot): void {
  let end = 0n;
  for (const { file, gpa, length, offset } of extents) {
    expect(gpa >= end && length > 0 && offset >= 0).toBe(true);
    end = gpa + BigInt(length);
    expect(regions.some((r) => gpa >= r.gpa && end <= r.gpa + BigInt(r.size))).toBe(true);
    expect(offset + length <= (files[file]?.size ?? -1)).toBe(true);
    expect((BigInt(length) | BigInt(offset) | gpa) & 4095n).toBe(0n);
  }
  for (const vcpu of state.vcpus) {
    expect(vcpu.regs).toHaveLength(144);
    expect(vcpu.xsave2.length).toBeGreaterThanOrEqual(4096);
  }
}
