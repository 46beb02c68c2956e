import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { KiB } from '../../lib/index.js';
import { boot, EMULATED } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { complaints } from './support/kernel-log.js';

// On hardware, more than the host may hold is written in the time that nobody reads. In emulation a
// byte takes a millisecond, or several on a busy machine: there it is shown only that none is lost.
const LINES = EMULATED ? 4_000 : 3_000_000;
// Shorter than the guest's watchdogs allow.
const UNREAD_MS = EMULATED ? 1_000 : 15_000;
// The addon's buffer (256 KiB), the stream's own, and what lay between them.
const MOST_HELD = KiB(256 + 128);

describe.skipIf(whyNoLinux())('A guest that floods its console', () => {
  test('waits for its reader; the host holds little of it, and no byte is lost', async () => {
    await using guest = await boot();
    const { terminal, vm } = guest;
    const started = 'flood-begins\n';
    const ended = 'flood-ends\n';
    terminal.type(`echo ${started.trim()}; seq ${LINES}; echo ${ended.trim()}\n`);
    await terminal.until(/flood-begins\n/);

    vm.console.pause();
    await sleep(UNREAD_MS);
    // It can be paused where it waits. What then comes out is what the host held.
    await vm.pause();
    const read = terminal.text.length;
    vm.console.resume();
    await sleep(2000);
    expect(terminal.text.length - read).toBeGreaterThan(0);
    expect(terminal.text.length - read).toBeLessThanOrEqual(MOST_HELD);
    expect(terminal.text).not.toContain(ended);

    await vm.resume();
    await terminal.until(/flood-ends\n/, 600_000);
    const written = terminal.text.slice(
      terminal.text.indexOf(started) + started.length,
      terminal.text.indexOf(ended),
    );
    const expected = Array.from({ length: LINES }, (_, index) => `${index + 1}\n`).join('');
    expect(written.length).toBe(expected.length);
    expect(sha256(written)).toBe(sha256(expected));
    expect(await complaints(terminal)).toEqual([]);
  });
});

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
