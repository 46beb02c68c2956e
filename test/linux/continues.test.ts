import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import {
  continueElsewhere,
  countedBy,
  countingGuest,
  countOn,
  endCount,
} from './support/continues.js';
import { powerOff } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { scratchStore } from './support/scratch.js';

// Longer than the guest's own idea of a moment; shorter than its watchdogs' 20 s.
const WAIT_MS = 3000;

describe.skipIf(whyNoLinux())('A snapshot of a running guest that counts and writes files', () => {
  test.each([1, 2])('%i vCPU: source and three copies elsewhere go on', async (vcpus) => {
    const store = scratchStore(`running-${vcpus}`);
    await using source = await countingGuest(vcpus, 5);
    const { terminal, vm, log } = source;

    const before = countedBy(terminal);
    const snapshot = await vm.snapshot({ store, tag: 'counting', then: 'resume' });
    const after = countedBy(terminal);
    expect(vm.status).toBe('running');
    expect(snapshot.stats!.pauseMs).toBeGreaterThan(0);
    snapshot.close();

    const first = await continueElsewhere(store, 'counting', { log });
    const second = await continueElsewhere(store, 'counting', { log });
    await sleep(WAIT_MS);
    const third = await continueElsewhere(store, 'counting', { log });
    // All copies start at the same byte, one that the source wrote while the call was under way.
    expect(second.held).toBe(first.held);
    expect(third.held).toBe(first.held);
    expect(first.held.startsWith(before)).toBe(true);
    expect(after.startsWith(first.held)).toBe(true);

    await countOn(terminal, 2);
    const last = await endCount(terminal, log);
    expect(last).toBeGreaterThan(first.last);
    expect(await powerOff(source)).toEqual({ reason: 'power-off' });
  });
});
