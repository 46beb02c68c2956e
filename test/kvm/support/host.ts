/** What the machine that runs these tests is like. */
import { accessSync, constants, readFileSync } from 'node:fs';
import { freemem, release, totalmem } from 'node:os';

/** In the emulated hardware host (docs/testing.md) everything takes 5 to 20 times as long. */
export const SLOWDOWN = process.env.KVMSNAP_EMULATED_HOST === '1' ? 10 : 1;

/** What part of their rounds such loops go that look for races; docs/testing.md. */
const SHARE = Number(process.env.KVMSNAP_ROUNDS ?? 1 / SLOWDOWN);

/** How often a loop goes round that looks for races: where they show, which is where machines are fast. */
export const rounds = (count: number): number =>
  Math.max(Math.min(count, 3), Math.ceil(count * SHARE));

/**
 * What has not come after so many milliseconds never comes: a limit that only catches what hangs, however busy
 * the machine is. Tests wait for events, and end long before.
 */
export const HANG_MS = SLOWDOWN > 1 ? 600_000 : 180_000;

/** The same for what goes round `count` times, `each` milliseconds where nothing else runs. */
export const hangLimit = (count: number, each: number): number => 4 * HANG_MS + 20 * each * count;

/** Options of a test that measures time by a real clock, which other work on the machine can disturb. */
export const REAL_CLOCK = { retry: 2 };

/**
 * KVM without a virtualisation extension runs ring 0 in its instruction emulator: 2 million
 * instructions a second, no SSE, and no `int3`.
 */
export const EMULATED_RING0 = !/^flags\s*:.*\b(svm|vmx)\b/m.test(
  readFileSync('/proc/cpuinfo', 'utf8'),
);

/** Why this tier cannot run here, if it cannot. */
export function whyNoKvm(): string | undefined {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    return `/dev/kvm cannot be used: ${(error as Error).message}. Run the tier in the emulated host: see docs/testing.md`;
  }
}

/** Bytes of memory that a test may count on. */
export const availableMemory = (): number => {
  const line = /^MemAvailable:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'utf8'));
  return line ? Number(line[1]) * 1024 : freemem();
};
export const installedMemory = totalmem;

/** Whether the kernel is of that version, or newer. */
export function kernelSince(major: number, minor: number): boolean {
  const [, hasMajor, hasMinor] = /^(\d+)\.(\d+)/.exec(release()) ?? [];
  return Number(hasMajor) > major || (Number(hasMajor) === major && Number(hasMinor) >= minor);
}
