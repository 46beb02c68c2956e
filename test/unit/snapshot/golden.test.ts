/**
 * A store that release 0.1 wrote, kept so that every later release reads it. It is never written
 * again: a change of format adds another directory beside it.
 */
import { cpSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodeMemoryIndex } from '../../../lib/snapshot/memory-index.js';
import { encodeState, VCPU_STRUCTS, VM_STRUCTS } from '../../../lib/snapshot/state.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { CHUNK, checksums, MEMORY, PAGE, sampleConfig, sampleState } from './samples.js';
import { scratch } from './scratch.js';

const GOLDEN = join(import.meta.dirname, '../../fixtures/snapshot-store-v1');
const BASE = 'sha256:3d49ccd24a3b110d1190b55a12e212e5a51c3be5dff652667db366615f161d92';
const NEXT = 'sha256:693771962a34026bc42968de05ecfcf80ff5f9640ef305d9817d984fa9010f1c';

const open = async (): Promise<SnapshotStore> => {
  const copy = join(scratch(), 'golden');
  cpSync(GOLDEN, copy, { recursive: true });
  return SnapshotStore.open(copy);
};
const blob = (digest: string): Buffer =>
  readFileSync(join(GOLDEN, 'blobs', digest.replace(':', '/')));

describe('the golden store of format 1', () => {
  it('is read as it was written', async () => {
    const store = await open();
    expect(await store.list()).toMatchObject([
      { tag: 'base', digest: BASE, summary: { layers: 1, parent: null } },
      { tag: 'next', digest: NEXT, summary: { layers: 2, parent: BASE } },
    ]);
    using base = await store.load('base');
    using next = await store.load('next');
    expect(base.state).toEqual(sampleState(1));
    expect(next.state).toEqual(sampleState(2));
    const { machine, host } = sampleConfig();
    expect(next.config).toMatchObject({ format: { layout: 1, state: 1 }, machine, host });
    const firstByte = Buffer.alloc(1);
    const pages = [...next.extents].map(({ file, gpa, length, offset }) => {
      readSync(next.files[file]?.fd as number, firstByte, 0, 1, offset);
      return [Number(gpa) / PAGE, length / PAGE, firstByte[0]];
    });
    // Page 0 of the base, page 1 of the increment; page 9 of the base became zero.
    expect(pages).toEqual([
      [0, 1, 0x11],
      [1, 1, 0x33],
    ]);
  });

  it('is whole', async () => {
    const store = await open();
    expect(await store.verify('base')).toMatchObject({ blobs: 5, chunks: 1 });
    expect(await store.verify('next')).toMatchObject({ blobs: 7, chunks: 2 });
  });

  it('holds the bytes that this release writes for the same machine', () => {
    const manifest = JSON.parse(blob(BASE).toString());
    const [state, index, part] = manifest.layers.map(({ digest }: { digest: string }) =>
      blob(digest),
    );
    expect(Buffer.from(encodeState(sampleState(1)))).toEqual(state);
    const written = encodeMemoryIndex({
      regions: [{ slot: 0, gpa: 0n, size: MEMORY }],
      chunkSize: CHUNK,
      parts: [{ size: 2 * PAGE, crc32c: checksums(part) }],
      extents: [
        { gpa: 0n, length: PAGE, part: 0, offset: 0 },
        { gpa: BigInt(9 * PAGE), length: PAGE, part: 0, offset: PAGE },
      ],
      zeros: [],
    });
    expect(Buffer.from(written)).toEqual(index);
  });

  it('a struct does not change its size or name unnoticed', () => {
    const sizes = Object.values({ ...VM_STRUCTS, ...VCPU_STRUCTS }).map(
      ({ key, unit, min, max }) => `${key} ${unit}*${min}..${max}`,
    );
    expect(sizes).toEqual([
      'kvm_irqchip.pic_master 520*1..1',
      'kvm_irqchip.pic_slave 520*1..1',
      'kvm_irqchip.ioapic 520*1..1',
      'kvm_pit_state2 112*1..1',
      'kvm_clock_data 48*1..1',
      'kvm_cpuid_entry2[] 40*1..256',
      'kvm_regs 144*1..1',
      'kvm_sregs2 320*1..1',
      'kvm_xsave 4*1024..16384',
      'kvm_xcrs 392*1..1',
      'kvm_debugregs 128*1..1',
      'kvm_msr_entry[] 16*0..4096',
      'kvm_lapic_state 1024*1..1',
      'kvm_vcpu_events 64*1..1',
      'kvm_mp_state 4*1..1',
    ]);
  });
});
