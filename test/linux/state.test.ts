import { describe, expect, test } from 'vitest';
import { differences } from '../kvm/support/state.js';
import { countingGuest } from './support/continues.js';
import { whyNoLinux } from './support/host.js';
import { scratchStore } from './support/scratch.js';

describe.skipIf(whyNoLinux())("A Linux guest's state", () => {
  test.each([1, 2])('%i vCPU: saved, restored and saved again, it is the same', async (vcpus) => {
    const store = scratchStore(`state-${vcpus}`);
    await using source = await countingGuest(vcpus, 2);
    await source.vm.pause();
    const saved = await source.vm.saveState();
    using snapshot = await source.vm.snapshot({ store });

    // A new generation ID would be told by an interrupt.
    await using copy = await snapshot.restore({ identity: { generation: 'keep' } });
    const restored = await copy.saveState();
    expect(differences(saved, restored)).toEqual([]);

    // And into a machine that has a state of its own.
    await copy.loadState(saved);
    expect(differences(saved, await copy.saveState())).toEqual([]);

    // The comparison sees what a machine does: one that runs differs.
    await source.vm.resume();
    await source.terminal.until(/count \d+\n/);
    await source.vm.pause();
    const later = await source.vm.saveState();
    expect(differences(saved, later).map(({ path }) => path)).toContain('vcpus[0].regs.rip');
  });
});
