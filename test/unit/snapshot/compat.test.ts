import { describe, expect, it } from 'vitest';
import type { NativeHost } from '../../../lib/native/binding.js';
import { findDifferences, requireCompatible } from '../../../lib/snapshot/compat.js';
import { decodeConfig, encodeConfig } from '../../../lib/snapshot/config.js';
import { decodeState, encodeState } from '../../../lib/snapshot/state.js';
import { sampleConfig, sampleState } from './samples.js';

const host: NativeHost = {
  apiVersion: 12,
  capabilities: { KVM_CAP_XSAVE2: 4096 },
  supportedCpuid: new Uint8Array(40),
  brand: new Uint8Array(48),
  msrIndices: new Uint32Array(),
  tscKhz: 2_400_000,
  vcpuMmapSize: 12_288,
  xsaveSize: 4096,
};
const { config } = encodeConfig(sampleConfig(), { name: 'kvmsnap', version: '0' }, null);
const snapshot = { config, state: sampleState() };
const allFeatures = { missingFeatures: () => [] };

describe('compatibility', () => {
  it('a like host has no differences', () => {
    expect(findDifferences(snapshot, host, allFeatures)).toEqual([]);
    requireCompatible(snapshot, host, allFeatures);
  });

  it('says all that differs at once, and where the snapshot is from', () => {
    const other = { ...host, capabilities: {}, xsaveSize: 2048, tscKhz: 3_000_000 };
    const options = { missingFeatures: () => ['avx512f', 'amx-tile'] };
    let error: unknown;
    try {
      requireCompatible(snapshot, other, options);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({
      code: 'ERR_SNAPSHOT_INCOMPATIBLE',
      details: [
        { kind: 'capability', name: 'KVM_CAP_XSAVE2', found: 0, required: 1 },
        { kind: 'cpu-feature', vcpu: 0, missing: ['avx512f', 'amx-tile'] },
        { kind: 'xsave', found: 2048, required: 4096 },
        { kind: 'tsc', foundKhz: 3_000_000, requiredKhz: 2_400_000 },
      ],
    });
    const { message } = error as Error;
    for (const part of ['KVM_CAP_XSAVE2', 'avx512f', '3000000', 'AuthenticAMD', '6.1.0']) {
      expect(message).toContain(part);
    }
  });

  it('hands both CPUIDs to the feature check', () => {
    const seen: Uint8Array[] = [];
    findDifferences(snapshot, host, {
      missingFeatures: (guest, supported) => {
        seen.push(guest, supported);
        return [];
      },
    });
    expect(seen).toEqual([snapshot.state.vcpus[0]?.cpuid2, host.supportedCpuid]);
  });

  it.each([
    ['within the tolerance of KVM', 2_400_599, {}, 0],
    ['beyond it', 2_400_700, {}, 1],
    ['beyond it, but scaled', 3_000_000, { KVM_CAP_TSC_CONTROL: 1 }, 0],
    ['unknown', 0, {}, 0],
  ])('a TSC frequency %s', (_, tscKhz, more, count) => {
    const other = { ...host, tscKhz, capabilities: { ...host.capabilities, ...more } };
    expect(findDifferences(snapshot, other, allFeatures)).toHaveLength(count);
    expect(findDifferences(snapshot, other, { ...allFeatures, ignore: ['tsc'] })).toEqual([]);
  });

  it('is not fooled by names of the prototype', () => {
    const asking = structuredClone(snapshot);
    asking.config.requires.capabilities = { constructor: 1, toString: 1 };
    expect(findDifferences(asking, host, allFeatures)).toHaveLength(2);
  });
});

describe('state', () => {
  it('comes back field by field, and equal state gives equal bytes', () => {
    const state = sampleState(7);
    const bytes = encodeState(state);
    expect(decodeState(bytes)).toEqual(state);
    expect(encodeState(decodeState(bytes))).toEqual(bytes);
    const asBuffers = structuredClone(state);
    for (const vcpu of asBuffers.vcpus) vcpu.regs = Buffer.from(vcpu.regs);
    expect(encodeState(asBuffers)).toEqual(bytes);
  });

  it.each([
    ['a struct of another length', { regs: new Uint8Array(1) }],
    ['no CPUID', { cpuid2: new Uint8Array() }],
    ['a TSC frequency that is none', { tsc_khz: Number.NaN }],
  ])('with %s is refused when it is saved', (_, change) => {
    const state = sampleState();
    Object.assign(state.vcpus[0] as object, change);
    expect(() => encodeState(state)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it.each([{ reason: 'exit-port', code: 0xffffffff }, { reason: 'power-off' }] as const)(
    'of a stopped machine says so: %o',
    (stopped) => {
      const state = { ...sampleState(3), stopped };
      expect(decodeState(encodeState(state))).toEqual(state);
      // What is not stopped has the bytes that it always had.
      const { stopped: _, ...running } = state;
      expect(encodeState(running)).toEqual(encodeState(sampleState(3)));
    },
  );

  it.each([
    ['a reason that leaves a machine poisoned', { reason: 'killed' }],
    ['no reason', {}],
    ['a code without an exit port', { reason: 'halt', code: 1 }],
    ['an exit port without a code', { reason: 'exit-port' }],
    ['a code of more than 32 bits', { reason: 'exit-port', code: 2 ** 32 }],
    ['a code below 0', { reason: 'exit-port', code: -1 }],
    ['a code that is text', { reason: 'exit-port', code: '1' }],
    ['another key', { reason: 'halt', why: 'x' }],
    ['a version to come', { reason: 'halt', version: 2 }],
  ])('of a stopped machine with %s is refused', (_, stopped) => {
    const state = { ...sampleState(), stopped } as unknown as ReturnType<typeof sampleState>;
    expect(() => encodeState(state)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it('refuses device numbers that would come back as another type', () => {
    const state = sampleState();
    state.devices.serial = { time: 2 ** 33 };
    expect(() => encodeState(state)).toThrow('64-bit fields are bigint');
  });
});

describe('config', () => {
  it('comes back, with facts of a newer release skipped', () => {
    const { bytes } = encodeConfig(sampleConfig(), { name: 'kvmsnap', version: '0' }, null);
    const json = JSON.parse(Buffer.from(bytes).toString());
    json.news = 1;
    expect(decodeConfig(Buffer.from(JSON.stringify(json)))).toEqual(config);
  });
});
