import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { VmOptions } from '../../lib/index.js';
import { boot, CMDLINE } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { Terminal } from './support/terminal.js';

const COPIES = Math.max(6, Math.ceil(60 * Number(process.env.KVMSNAP_ROUNDS ?? 0.1)));

const TIMERS: [string, Partial<VmOptions>][] = [
  ['TSC deadlines', {}],
  ['LAPIC one-shots, asked for', { cmdline: `${CMDLINE} lapic=notscdeadline` }],
  ['LAPIC one-shots, for want of deadlines', { cpuTemplate: { features: ['tsc_deadline_timer'] } }],
];

describe.skipIf(whyNoLinux())('A Linux guest that sleeps and wakes', () => {
  test.each(
    TIMERS.flatMap(([name, options]) => [1, 2].map((cpus) => [name, cpus, options] as const)),
  )('%s, %i vCPU: wakes in each copy, whatever the instant', async (_, vcpus, options) => {
    await using source = await boot({ vcpus, ...options });
    const { terminal, vm } = source;
    // Timers all the time, a few milliseconds apart, on every CPU.
    await terminal.run('for i in 1 2 3; do (while usleep 2000; do :; done) & done');
    for (let copy = 0; copy < COPIES; copy++) {
      await sleep(Math.random() * 20);
      const [fork] = await vm.fork(1);
      const its = new Terminal(fork!.console, fork!.console);
      await fork!.start();
      expect(await its.run('usleep 5000; usleep 5000; echo awake')).toBe('awake\n');
      await fork!.close();
    }
    expect(await terminal.run('usleep 5000; echo awake')).toBe('awake\n');
  });
});
