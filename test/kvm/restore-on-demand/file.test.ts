import { describe, expect, it } from 'vitest';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { stopOf, word } from '../support/machines.js';
import { onDemand, savedPattern, sourceOf, verified } from './saved.js';

describe('a machine whose memory comes on demand', () => {
  it('finds every page as it was', async () => {
    const snapshot = await savedPattern({ memory: MiB(32) });
    const vm = await onDemand(snapshot);
    expect(vm.status).toBe('paused');
    expect(vm.paging).toMatchObject({ active: true, faultedPages: 0 });
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
    console.log(vm.paging);
  });
  it('finds every page as it was from js', async () => {
    const snapshot = await savedPattern({ memory: MiB(32) });
    const source = await sourceOf(snapshot);
    const vm = await onDemand(snapshot, { source });
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
    console.log(vm.paging, source.asked.length);
  });
});
