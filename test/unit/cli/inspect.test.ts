import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { inspect } from '../../../lib/cli/commands/inspect.js';
import { type Inspected, renderInspected } from '../../../lib/cli/inspect/render.js';
import { jsonValue } from '../../../lib/cli/output.js';
import { VCPU_SECTIONS } from '../../../lib/cpu/sections.js';
import { sampleState } from '../snapshot/samples.js';

const GOLDEN = join(import.meta.dirname, '../../fixtures/snapshot-store-v1');
const copy = join(mkdtempSync(join(tmpdir(), 'kvmsnap-inspect-')), 'store');
cpSync(GOLDEN, copy, { recursive: true });
afterAll(() => rmSync(join(copy, '..'), { recursive: true }));

describe('inspecting the golden snapshot', () => {
  it('gives every register by name', async () => {
    const { state } = await inspect(copy, 'next');
    // The sample of the store's tests is what the fixture was made of.
    const raw = sampleState(2).vcpus[0]?.regs as Uint8Array;
    const { rip, rax } = VCPU_SECTIONS.regs.decode(raw);
    expect(state.vcpus[0]?.sections.regs).toMatchObject({
      rip: `0x${rip.toString(16)}`,
      rax: `0x${rax.toString(16)}`,
    });
    expect(Object.keys(state.vcpus[0]?.sections ?? {})).toEqual(
      Object.keys(VCPU_SECTIONS).filter((name) => name !== 'msrs'),
    );
    expect(Object.keys(state.vm)).toEqual(['pic_master', 'pic_slave', 'ioapic', 'pit2', 'clock']);
  });

  it('survives the way through JSON', async () => {
    const inspected = await inspect(copy, 'next');
    expect(JSON.parse(JSON.stringify(inspected, jsonValue))).toEqual(inspected);
  });

  it('shows a struct that makes no sense as a problem, not as a failure', async () => {
    const inspected = await inspect(copy, 'next');
    // The sample's XSAVE area claims the compacted format, which KVM never gives.
    expect(inspected.state.vcpus[0]?.sections.xsave2).toMatchObject({
      problem: expect.stringContaining('compacted'),
      raw: expect.stringMatching(/^([0-9a-f]{2}){4096}$/),
    });
    expect(renderInspected(inspected)).toContain('kvm_xsave is in the compacted format');
  });

  it('can be read by people', async () => {
    const text = renderInspected(await inspect(copy, 'next'));
    for (const piece of [
      /^next {2}sha256:6937/,
      /slot 0: 256 KiB at 0x0/,
      /exitPort 0xf4/,
      /vCPU 0: .*TSC 2400000 kHz/,
      / {2}rip +0x5b3c1dfedfc0a182/,
      / {2}cs +0x9576 +0xdbbc9d7e5f402102/,
      /vCPU 0 MSRs/,
      /pin 23 /,
      /Device serial/,
    ]) {
      expect(text).toMatch(piece);
    }
    // The bytes of what cannot be decoded are in the JSON only.
    expect(text).not.toMatch(/[0-9a-f]{1000}/);
  });

  it('lets no text of a snapshot drive the terminal', async () => {
    const inspected: Inspected = await inspect(copy, 'next');
    inspected.config.annotations = { '\u001b[2J': '\u0007\u009b31m' };
    // biome-ignore lint/suspicious/noControlCharactersInRegex: those must not be there.
    expect(renderInspected(inspected)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  });
});
