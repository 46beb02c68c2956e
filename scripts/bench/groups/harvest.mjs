// What a tracker takes to tell which 4000 pages a guest has written since it was asked last.
//
// `harvest_`: the harvest itself, as each epoch reports it: logs read, protection armed again, what the
// VMM wrote joined. That is the floor's work, and what it is compared with. `epoch_`: from asking for
// the epoch to having it, with the way through the machine's thread and the event loop.
import assert from 'node:assert/strict';
import { GUEST_ABI } from '../../../dist/native/guest-abi.js';
import { createMachine, runToPass, runToReady, setPages } from '../machines.mjs';

const PAGES = 4000;
const RING_ENTRIES = 65536;
const FIRST = Number(GUEST_ABI.PAGES / 4096n);

/** All that the guest wrote must be there: a harvest that misses pages is not fast but wrong. */
function requireWhole({ slots: [{ bitmap }] }) {
  for (let page = FIRST; page < FIRST + PAGES; page++) {
    assert(bitmap[page >> 3] & (1 << (page & 7)), `page ${page} was missed`);
  }
}

async function measureTracker(tracker, names, { memory, runs, record, now }) {
  const options = tracker === 'ring' ? { dirtyRing: RING_ENTRIES } : {};
  const vm = await createMachine('least', memory, options);
  try {
    await setPages(vm, PAGES);
    await runToReady(vm);
    await runToPass(vm);
    const epochs = vm.dirty({ tracker, every: 0 });
    await epochs.next();
    for (let i = -1; i < runs; i++) {
      await runToPass(vm);
      const start = now();
      const { value: epoch } = await epochs.next();
      const seen = now() - start;
      requireWhole(epoch);
      // The guest's first tracked pass meets pages as they were before.
      if (i < 0) continue;
      record(names.harvest, epoch.harvestUs);
      record(names.epoch, seen);
    }
    await epochs.return();
  } finally {
    await vm.close();
  }
}

export async function measure(context) {
  for (const tracker of ['bitmap', 'bitmap-manual', 'ring']) {
    const [harvest, epoch] = ['harvest', 'epoch'].map(
      (what) => `${what}_${tracker.replace('-', '_')}_${PAGES}_pages`,
    );
    if (![harvest, epoch].some(context.wanted)) continue;
    await measureTracker(tracker, { harvest, epoch }, context);
  }
}
