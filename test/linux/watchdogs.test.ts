import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { boot, EMULATED } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { loggedSince, markLog } from './support/kernel-log.js';

// The soft lockup detector looks for twice this, in seconds; RCU for its own timeout.
const STRICT = [
  'echo 3 > /proc/sys/kernel/watchdog_thresh',
  'echo 5 > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout',
].join(' && ');
// Longer than either; on a fast machine by far.
const PAUSE_MS = EMULATED ? 8_000 : 15_000;

describe.skipIf(whyNoLinux())("The guest's watchdogs", () => {
  test.each([1, 2])('%i vCPU: take a long pause for what it is', async (vcpus) => {
    await using guest = await boot({ vcpus });
    const { terminal, vm } = guest;
    await terminal.run(STRICT);
    const log = await markLog(terminal);
    terminal.type('sh -c "while :; do :; done" &\n');
    await terminal.run('sleep 2');

    await vm.pause();
    await sleep(PAUSE_MS);
    await vm.resume();
    await terminal.run('sleep 8');
    expect(await loggedSince(terminal, log)).toEqual([]);
  });
});
