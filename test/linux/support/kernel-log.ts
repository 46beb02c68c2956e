/** The guest's kernel log, read for what should not be in it. */
import type { Terminal } from './terminal.js';

/** Warnings and errors (levels 0 to 4) of a healthy guest, and why it has them. */
const KNOWN: readonly [RegExp, string][] = [
  [
    /^PCI: Fatal: No config space access function found$/,
    'the machine has no PCI, and kernels say so',
  ],
  [/^PCI: System does not support PCI$/, 'the same'],
  [/^ {2}(with arguments|with environment):$/, 'how it starts /init: printed without a level'],
  [/^ {4}(\/init|HOME=\/|TERM=linux|nokaslr|noxsave|nokaslr)$/, 'the same'],
  [
    /^(Spectre|MDS|TAA|MMIO Stale Data|SRBDS|RETBleed|Speculative Store Bypass|L1TF)\b.*ulnerable/,
    'mitigations=off',
  ],
  [/^RAS: Correctable Errors collector initialized/, 'no warning in spite of its level'],
];

const LINE = /^<(\d+)>\[\s*\d+\.\d+\]\s?(.*)$/;
const WARNING = 4;

/** Warnings and worse that a healthy guest does not have. */
export async function complaints(terminal: Terminal): Promise<string[]> {
  const log = await terminal.run('dmesg -r');
  return log.split('\n').filter((line) => {
    const [, priority, text] = LINE.exec(line) ?? [];
    if (priority === undefined || text === undefined) return line !== '';
    return (Number(priority) & 7) <= WARNING && !KNOWN.some(([pattern]) => pattern.test(text));
  });
}

/** What a guest may log while it runs, without fault of the machine's, and why. */
const HARMLESS: readonly [RegExp, string][] = [
  [/hrtimer: interrupt took \d+ ns/, 'the host was busy during an interrupt; said once'],
];

export const kernelLog = (terminal: Terminal): Promise<string> => terminal.run('dmesg -r');

/**
 * What the kernel has logged since `earlier`: no lockup, stall, hung task, complaint of a clocksource
 * or anything else should come from a restore, so that nothing at all is expected here.
 */
export async function loggedSince(terminal: Terminal, earlier: string): Promise<string[]> {
  const now = await kernelLog(terminal);
  if (!now.startsWith(earlier)) return ['the log does not go on from the earlier one', now];
  return now
    .slice(earlier.length)
    .split('\n')
    .filter((line) => line !== '' && !HARMLESS.some(([pattern]) => pattern.test(line)));
}
