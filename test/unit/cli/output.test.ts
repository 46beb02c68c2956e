import { describe, expect, it } from 'vitest';
import { lastNumber } from '../../../lib/cli/demo/count.js';
import { exitCodeOf, signalExitCode } from '../../../lib/cli/exit-codes.js';
import { formatAge, formatBytes, formatMs, table } from '../../../lib/cli/output.js';
import { errorLine } from '../../../lib/cli/report.js';
import { stopExitCode, stopProblem } from '../../../lib/cli/stop.js';
import { KvmsnapError } from '../../../lib/errors.js';

describe('errors', () => {
  it('are one line with what to do', () => {
    const error = new KvmsnapError('ERR_ADDON', 'not at:\n  a\n  b\nBuild it.');
    expect(errorLine(error)).toBe('kvmsnap: not at: a b Build it.');
    expect(errorLine(new KvmsnapError('ERR_NO_KVM', 'none'))).toMatch(
      /^kvmsnap: none\. Run `kvmsnap doctor`/,
    );
    expect(errorLine(new Error('\u001b[31mred'))).toBe('kvmsnap: ?[31mred');
  });

  it('have the documented exit codes', () => {
    const code = (name: KvmsnapError['code']) => exitCodeOf(new KvmsnapError(name, ''));
    expect(code('ERR_INVALID_ARGUMENT')).toBe(2);
    expect(code('ERR_NO_KVM')).toBe(3);
    expect(code('ERR_SNAPSHOT_CORRUPT')).toBe(4);
    expect(code('ERR_SNAPSHOT_INCOMPATIBLE')).toBe(4);
    expect(code('ERR_STORE')).toBe(1);
    expect(exitCodeOf(new TypeError())).toBe(1);
    expect(signalExitCode('SIGTERM')).toBe(143);
  });
});

describe('stops', () => {
  it("give the guest's exit code, or say that it ended otherwise", () => {
    expect(stopExitCode({ reason: 'exit-port', code: 81 })).toBe(81);
    expect(stopExitCode({ reason: 'power-off' })).toBe(0);
    expect(stopExitCode({ reason: 'shutdown' })).toBe(1);
    expect(stopExitCode({ reason: 'killed' })).toBe(137);
    expect(stopProblem({ reason: 'shutdown' })).toContain('triple fault');
    expect(stopProblem({ reason: 'reset' })).toBeUndefined();
  });
});

describe('figures', () => {
  it('are short', () => {
    expect([formatBytes(512), formatBytes(1536), formatBytes(2 ** 30)]).toEqual([
      '512 B',
      '1.5 KiB',
      '1 GiB',
    ]);
    expect([formatMs(0.25), formatMs(5), formatMs(50), formatMs(5000)]).toEqual([
      '250 us',
      '5.00 ms',
      '50.0 ms',
      '5.00 s',
    ]);
    expect([formatAge(-5), formatAge(90e3), formatAge(3600e3)]).toEqual(['0 s', '90 s', '60 min']);
    expect(
      table([
        ['a', 'bb'],
        ['ccc', 'd'],
      ]),
    ).toBe('a    bb\nccc  d\n');
  });
});

describe("the demo's proof", () => {
  it('takes an unbroken count only', () => {
    expect(lastNumber('')).toBe(0);
    expect(lastNumber('1\n2\n3')).toBe(2);
    expect(lastNumber('1\n2\n3\n')).toBe(3);
    for (const broken of ['1\n3\n', '1\n1\n', '2\n', '1\n\n2\n', '01\n']) {
      expect(() => lastNumber(broken)).toThrow(/broken/);
    }
  });
});
