import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseOptions, UsageError } from '../../../scripts/emulated-host/options.mjs';
import {
  exitStatusOf,
  failureReport,
  linePrefixer,
} from '../../../scripts/emulated-host/report.mjs';
import { userTasks } from '../../../scripts/emulated-host/tasks.mjs';

// As a Debian 6.1 kernel answers sysrq-t on its serial line.
const TASKS = `[   10.640] sysrq: Show State
[   10.641] task:kthreadd        state:S stack:0     pid:2     ppid:0      flags:0x00004000
[   10.641] Call Trace:
[   10.641]  <TASK>
[   10.641]  kthreadd+0x2a8/0x2f0
[   10.641]  </TASK>
[   10.642] task:kworker/0:1     state:I stack:0     pid:9     ppid:2      flags:0x00004000
[   10.642] task:sleep           state:S stack:0     pid:145   ppid:142    flags:0x00000002
[   10.642] Call Trace:
[   10.642]  <TASK>
[   10.642]  __schedule+0x34d/0xa00
[   10.642]  schedule+0x5a/0xd0
[   10.642]  do_nanosleep+0x7b/0x140
[   10.643]  ? __hrtimer_init+0xe0/0xe0
[   10.643]  hrtimer_nanosleep+0x9e/0x170
[   10.643]  do_syscall_64+0x5d/0xb0
[   10.644]  </TASK>
[   10.645]  not_a_frame_of_sleep+0x1/0x2
[   10.646] task:node            state:R  running task     stack:0     pid:146   ppid:142    flags:0x00000002
[   10.646] Call Trace:
[   10.646]  <TASK>
[   10.646]  sched_show_task.cold+0x1a/0x2c
[   10.647]  show_state_filter+0x66/0xc0
[   10.647]  handle_irq_event+0x3a/0x80
[   10.647]  common_interrupt+0xb9/0xd0
[   10.647]  asm_common_interrupt+0x22/0x40
[   10.647] RIP: 0033:0x7f3b5a
[   10.648]  </TASK>
`;

describe('what ended a run', () => {
  let serialLog: string;
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'kvmsnap-report-'));
    serialLog = join(directory, 'serial.log');
    writeFileSync(serialLog, '');
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));
  const report = (result: Parameters<typeof failureReport>[0]) =>
    failureReport(result, { serialLog, timeoutMs: 9000 }).join('\n');

  test('a job that ended is no failure of the host, and gives its own status', () => {
    const result = { kind: 'exited', status: 7, qemuOutput: '' } as const;
    expect(exitStatusOf(result)).toBe(7);
    expect(report(result)).toBe('');
  });

  test('a panic is named, with the log and where it is', () => {
    writeFileSync(serialLog, 'boot\r\n[ 4.9] Kernel panic - not syncing: Fatal exception\r\n');
    const result = { kind: 'died', reason: 'QEMU ended (exit status 0)', qemuOutput: '' } as const;
    expect(exitStatusOf(result)).toBe(125);
    expect(report(result)).toContain(
      'died before the job ended: Kernel panic - not syncing: Fatal',
    );
    expect(report(result)).toContain('boot\n');
    expect(report(result)).toContain(`whole serial log: ${serialLog}`);
  });

  test('a timeout says what every process was waiting for', () => {
    writeFileSync(serialLog, TASKS);
    const result = { kind: 'timeout', limit: 'job', qemuOutput: '' } as const;
    expect(exitStatusOf(result)).toBe(124);
    expect(report(result)).toContain('still running after 9 s');
    expect(report(result)).toMatch(/145 S sleep +do_nanosleep < hrtimer_nanosleep$/m);
  });

  test('a host that never came up is no timeout of the job', () => {
    const result = { kind: 'timeout', limit: 'boot', qemuOutput: '' } as const;
    expect(exitStatusOf(result)).toBe(125);
    expect(report(result)).toContain('did not come up');
  });

  test('of what QEMU says, features it does not emulate are left out', () => {
    const qemuOutput = "q: warning: TCG doesn't support requested feature: X\nno such file\n";
    const text = report({ kind: 'failed', reason: 'insmod kvm failed', qemuOutput });
    expect(text).toContain('insmod kvm failed');
    expect(text).toContain('no such file');
    expect(text).not.toContain('requested feature');
  });
});

test('only processes outside the kernel are listed, with frames that are certain', () => {
  expect(userTasks(TASKS)).toEqual([
    { name: 'sleep', state: 'S', pid: 145, frames: ['do_nanosleep', 'hrtimer_nanosleep'] },
    { name: 'node', state: 'R', pid: 146, frames: [] },
  ]);
});

test('lines keep their prefix however the chunks fall, in characters of several bytes too', () => {
  let written = '';
  const out = linePrefixer({ write: (text) => (written += text) }, '[1/2] ');
  const bytes = Buffer.from('eins\nzwölf\n\nRest');
  for (const byte of bytes) out.write(Buffer.from([byte]));
  expect(written).toBe('[1/2] eins\n[1/2] zwölf\n[1/2] \n');
  out.end();
  expect(written).toMatch(/\[1\/2\] Rest\n$/);
});

describe('command line', () => {
  test('options end where the command begins', () => {
    const options = parseOptions(['--shards', '2', '--env', 'A=b=c', '--', 'x', '--shards', '9']);
    expect(options).toMatchObject({
      shards: 2,
      timeoutMs: 1_800_000,
      memoryMiB: 3072,
      environment: { A: 'b=c' },
      command: ['x', '--shards', '9'],
    });
  });

  test('--env NAME takes the value from here, and nothing if there is none', () => {
    process.env.KVMSNAP_TEST_FORWARDED = 'yes';
    const argv = ['--env', 'KVMSNAP_TEST_FORWARDED', '--env', 'KVMSNAP_TEST_UNSET', '--', 'x'];
    expect(parseOptions(argv)?.environment).toEqual({ KVMSNAP_TEST_FORWARDED: 'yes' });
    delete process.env.KVMSNAP_TEST_FORWARDED;
  });

  test.each([
    [['--shards', '0', '--', 'x'], /--shards takes a number from 1/],
    [['--timeout', '1.5', '--', 'x'], /--timeout takes a number/],
    [['--share', '/nonexistent', '--', 'x'], /no such directory/],
    [['--env', '1=2', '--', 'x'], /--env takes NAME/],
    [['--nonesuch', '--', 'x'], /nonesuch/],
    [[], /a command is needed/],
  ])('refuses %j', (argv, message) => {
    expect(() => parseOptions(argv)).toThrow(UsageError);
    expect(() => parseOptions(argv)).toThrow(message);
  });

  test('--help needs no command', () => {
    expect(parseOptions(['--help'])).toBeUndefined();
  });
});
