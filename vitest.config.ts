import { defineConfig } from 'vitest/config';

// Inside the emulated host everything takes many times as long (docs/testing.md).
const SLOWDOWN = process.env.KVMSNAP_EMULATED_HOST === '1' ? 10 : 1;

// Three tiers, apart: what needs no device, what needs /dev/kvm, and what boots Linux.
export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], pool: 'forks' } },
      {
        test: {
          name: 'kvm',
          include: ['test/kvm/**/*.test.ts'],
          setupFiles: ['test/kvm/support/setup.ts'],
          pool: 'forks',
          testTimeout: 60_000 * SLOWDOWN,
          hookTimeout: 60_000 * SLOWDOWN,
        },
      },
      {
        test: {
          name: 'linux',
          include: ['test/linux/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          // A minute or two in the emulated host; more where it shares its core.
          testTimeout: 60_000 * SLOWDOWN,
          hookTimeout: 60_000 * SLOWDOWN,
        },
      },
    ],
  },
});
