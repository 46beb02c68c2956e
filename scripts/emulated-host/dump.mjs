// Asks a kernel that hangs what it is doing.

import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

// Commands of Documentation/admin-guide/sysrq.rst. 9: print everything; t: all tasks; w: blocked
// tasks; l: what the CPU is doing.
const SYSRQ_KEYS = ['9', 't', 'w', 'l'];

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
    await delay(500);
  }
  if (!readFileSync(serialLog, 'utf8').includes('task:')) {
    qmp({ execute: 'inject-nmi' });
    await delay(2000);
  }
}
