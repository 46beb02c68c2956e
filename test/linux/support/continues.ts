/** A counting guest, and proof that a copy of it goes on exactly where the snapshot left it. */
import { expect } from 'vitest';
import { countsUpTo, wholeFiles } from './counter.js';
import { RestoredElsewhere } from './elsewhere.js';
import { boot, type Guest } from './guest.js';
import { complaints, type LogMark, loggedSince, markLog } from './kernel-log.js';
import type { Terminal } from './terminal.js';

const STARTED = 'counting-begins\n';

export interface Counting extends Guest {
  /** Where the kernel's log stood before the count began. */
  log: LogMark;
}

/** Boots a guest and lets it count, until it has counted to `reached`. */
export async function countingGuest(vcpus: number, reached: number): Promise<Counting> {
  const guest = await boot({ vcpus });
  const { terminal } = guest;
  expect(await complaints(terminal)).toEqual([]);
  const log = await markLog(terminal);
  terminal.type(`echo ${STARTED.trim()}; counter &\n`);
  await terminal.until(new RegExp(STARTED));
  await terminal.until(new RegExp(`count ${reached}\n`));
  return Object.assign(guest, { log });
}

/** What the console has shown since the count began. */
export const countedBy = (terminal: Terminal): string =>
  terminal.text.slice(terminal.text.indexOf(STARTED) + STARTED.length);

/** Lets a machine count on for `more` numbers, whatever number it is at. */
export async function countOn(terminal: Terminal, more: number): Promise<void> {
  for (let i = 0; i < more; i++) await terminal.until(/count \d+\n/);
}

/**
 * Stops the count and looks inside: every file from the first to the last number is what it must
 * be, clocks have not gone back, the kernel has logged nothing since before the snapshot.
 * Gives the last number.
 */
export async function endCount(terminal: Terminal, log: LogMark): Promise<number> {
  terminal.type('touch /tmp/stop\n');
  const last = Number((await terminal.until(/stopped (\d+)\n/))[1]);
  expect(await terminal.run('check-files')).toBe(wholeFiles(last));
  expect(await loggedSince(terminal, log)).toEqual([]);
  return last;
}

/** How much of the count a snapshot holds, told by a copy: its first output is the very next byte. */
export function heldBefore(copy: string, last: number): string {
  const all = `${countsUpTo(last)}stopped ${last}\n`;
  const rest = copy.slice(0, copy.indexOf(`stopped ${last}\n`) + `stopped ${last}\n`.length);
  // Nothing left out, nothing twice, nothing between: what it showed is how the count ends.
  expect(all.endsWith(rest)).toBe(true);
  return all.slice(0, all.length - rest.length);
}

/** Restores `ref` in a process of its own, lets it count on, ends and checks it. */
export async function continueElsewhere(
  store: string,
  ref: string,
  { log, more = 5 }: { log: LogMark; more?: number },
): Promise<{ held: string; last: number }> {
  await using copy = new RestoredElsewhere(store, ref);
  await copy.started();
  await countOn(copy.terminal, more);
  const last = await endCount(copy.terminal, log);
  const held = heldBefore(copy.terminal.text, last);
  copy.terminal.type('poweroff -f\n');
  expect(await copy.stopped()).toBe('power-off');
  return { held, last };
}
