/** The guest's kernel log, read for what should not be in it. */
import type { Terminal } from './terminal.js';

/** Warnings and errors (levels 0 to 4) of a healthy guest, and why it has them. */
const KNOWN: readonly [RegExp, string][] = [
  [
    /^PCI: Fatal: No config space access function found$/,
    'the machine has no PCI, and kernels say so',
  ],
  [/^PCI: System does not support PCI$/, 'the same'],
  [
    /^(Spectre|MDS|TAA|MMIO Stale Data|SRBDS|RETBleed|Speculative Store Bypass|L1TF)\b.*ulnerable/,
    'mitigations=off',
  ],
];

/** What a guest may log while it runs, without fault of the machine's, and why. */
const HARMLESS: readonly [RegExp, string][] = [
  [/^random: crng reseeded due to virtual machine fork$/, 'it is a clone, and was told so'],
  [/^hrtimer: interrupt took \d+ ns$/, 'the host was busy during an interrupt; said once'],
];

const LINE = /^<\d+>\[\s*\d+\.\d+\]\s?(.*)$/;

const isKnown = (line: string, known: readonly [RegExp, string][]): boolean =>
  known.some(([pattern]) => pattern.test(LINE.exec(line)?.[1] ?? line));

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

/** Warnings and worse that a healthy guest does not have. */
export async function complaints(terminal: Terminal): Promise<string[]> {
  const warnings = await terminal.run("dmesg -r | grep '^<[0-4]>'; true");
  return lines(warnings).filter((line) => !isKnown(line, [...KNOWN, ...HARMLESS]));
}

/** A place in the kernel's log. */
export type LogMark = number;

export const markLog = async (terminal: Terminal): Promise<LogMark> =>
  Number(await terminal.run('dmesg | wc -l'));

/**
 * What the kernel has logged since: no lockup, stall, hung task, complaint of a clocksource or anything
 * else should come from a restore, so that nothing at all is expected here.
 */
export async function loggedSince(terminal: Terminal, mark: LogMark): Promise<string[]> {
  const news = await terminal.run(`dmesg -r | tail -n +${mark + 1}`);
  return lines(news).filter((line) => !isKnown(line, HARMLESS));
}
