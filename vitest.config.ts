import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

const EMULATED = process.env.KVMSNAP_EMULATED_HOST === '1';

// Tests wait for events: this only catches what hangs, on however busy a machine. Longer than HANG_MS of
// test/kvm/support/host.ts, which says what was waited for in vain.
const LIMIT_MS = EMULATED ? 900_000 : 300_000;

// A test in which no assertion was reached has shown nothing.
const ASSERTING = { expect: { requireAssertions: true } };

// Tests of processes, files, counts and sizes, which no kind of KVM makes different, and long ones: they
// run where they are fast, on the machine itself.
const NOT_EMULATED = [
  // Long; test/kvm/dirty/lifecycle runs the same trackers there.
  'test/kvm/dirty/truth.test.ts',
  'test/kvm/bench/**',
  'test/kvm/cli/**',
  // Long too: failures.test.ts waits for pages there in every way.
  'test/kvm/restore-on-demand/pages.test.ts',
  'test/kvm/restore-on-demand/whole.test.ts',
  'test/kvm/robustness/**',
  'test/kvm/snapshot/failures.test.ts',
  'test/kvm/snapshot/large.test.ts',
  'test/kvm/snapshot/processes.test.ts',
];

// Vitest keeps a core for itself, which leaves one of two; but tests wait more than they compute.
const WORKERS = EMULATED ? 1 : Math.max(2, availableParallelism() - 1);

// Three tiers, apart: what needs no device, what needs /dev/kvm, and what boots Linux.
export default defineConfig({
  test: {
    maxWorkers: WORKERS,
    reporters: ['default', './scripts/test/retries.mjs'],
    projects: [
      {
        test: {
          name: 'unit',
          ...ASSERTING,
          include: ['test/unit/**/*.test.ts'],
          pool: 'forks',
          testTimeout: LIMIT_MS,
          hookTimeout: LIMIT_MS,
        },
      },
      {
        test: {
          name: 'kvm',
          ...ASSERTING,
          include: ['test/kvm/**/*.test.ts'],
          exclude: EMULATED ? NOT_EMULATED : [],
          setupFiles: ['test/kvm/support/setup.ts'],
          pool: 'forks',
          testTimeout: LIMIT_MS,
          hookTimeout: LIMIT_MS,
        },
      },
      {
        test: {
          name: 'linux',
          ...ASSERTING,
          include: ['test/linux/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          testTimeout: LIMIT_MS,
          hookTimeout: LIMIT_MS,
        },
      },
    ],
  },
});
