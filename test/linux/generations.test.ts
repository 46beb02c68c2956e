import { describe, expect, test } from 'vitest';
import { Snapshot } from '../../lib/index.js';
import {
  continueElsewhere,
  countedBy,
  countingGuest,
  countOn,
  endCount,
  heldBefore,
} from './support/continues.js';
import { RestoredElsewhere } from './support/elsewhere.js';
import { whyNoLinux } from './support/host.js';
import { scratchStore } from './support/scratch.js';

describe.skipIf(whyNoLinux())('Snapshots of other machines than a running one', () => {
  test('a paused machine: its copies go on with what the pause held back', async () => {
    const store = scratchStore('paused');
    await using source = await countingGuest(1, 5);
    const { terminal, vm, log } = source;
    await vm.pause();

    const snapshot = await vm.snapshot({ store, tag: 'paused' });
    expect(vm.status).toBe('paused');
    expect(snapshot.stats!.pauseMs).toBe(0);
    snapshot.close();
    const shown = countedBy(terminal);

    const copy = await continueElsewhere(store, 'paused', { log });
    expect(copy.held).toBe(shown);

    await vm.resume();
    await countOn(terminal, 2);
    await endCount(terminal, log);
  });

  test('a running machine that was itself restored, in a third process', async () => {
    const store = scratchStore('second');
    await using source = await countingGuest(2, 3);
    const { log, vm } = source;
    (await vm.snapshot({ store, tag: 'first', then: 'stop' })).close();
    expect(vm.status).toBe('closed');

    await using copy = new RestoredElsewhere(store, 'first');
    await copy.started();
    await countOn(copy.terminal, 3);
    const before = copy.terminal.text;
    await copy.snapshot('second');
    const after = copy.terminal.text;
    const third = await continueElsewhere(store, 'second', { log });
    await countOn(copy.terminal, 2);
    const last = await endCount(copy.terminal, log);

    const heldByFirst = heldBefore(copy.terminal.text, last);
    expect(third.held.startsWith(heldByFirst + before)).toBe(true);
    expect((heldByFirst + after).startsWith(third.held)).toBe(true);
    // The first is as it was: the copy wrote to pages of its own.
    using first = await Snapshot.open(store, 'first');
    expect((await first.verify()).chunks).toBeGreaterThan(0);
    const again = await continueElsewhere(store, 'first', { log });
    expect(again.held).toBe(heldByFirst);
  });
});
