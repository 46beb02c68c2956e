// Asks a kernel that hangs what it is doing.

import { readFileSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

// Commands of Documentation/admin-guide/sysrq.rst. 9: print everything; p: registers of what runs; t: all
// tasks; w: blocked tasks; l: what the CPU is doing.
const SYSRQ_KEYS = ['9', 'p', 't', 'w', 'l'];
const QUIET_MS = 1000;
const LONGEST_ANSWER_MS = 15_000;

/** Resolves once nothing has been added to the log for a while: a long answer takes seconds. */
async function untilQuiet(log) {
  const deadline = performance.now() + LONGEST_ANSWER_MS;
  for (let size = -1; size !== statSync(log).size && performance.now() < deadline; ) {
    size = statSync(log).size;
    await delay(QUIET_MS);
  }
}

/**
 * Has the kernel write its tasks to the serial log. Over the serial line: a break, then a command
 * key. A kernel that hangs with interrupts off does not answer: then an NMI makes it panic where it
 * stands, with a backtrace (kernel parameter unknown_nmi_panic).
 */
export async function dumpTasks({ monitor, serial }, serialLog) {
  if (!monitor || !serial) return;
  const qmp = (command) => monitor.write(`${JSON.stringify(command)}\n`);
  qmp({ execute: 'qmp_capabilities' });
  for (const key of SYSRQ_KEYS) {
    qmp({ execute: 'chardev-send-break', arguments: { id: 'serial' } });
    await delay(100);
    serial.write(key);
    await untilQuiet(serialLog);
  }
  if (!readFileSync(serialLog, 'utf8').includes('task:')) {
    qmp({ execute: 'inject-nmi' });
    await delay(2000);
  }
}
