import { describe, expect, test } from 'vitest';
import { qemuArguments } from '../../../scripts/bench/qemu/arguments.mjs';
import { classify, Lines } from '../../../scripts/bench/qemu/lines.mjs';

test('lines are whole, however they come', () => {
  const lines = new Lines();
  expect(lines.push('{"a":')).toEqual([]);
  expect(lines.push('1}\r\n\r\n{"b"')).toEqual(['{"a":1}']);
  expect(lines.push(':2}\n{"c":3}\n')).toEqual(['{"b":2}', '{"c":3}']);
});

describe('a message of the monitor is', () => {
  test.each([
    ['{"QMP":{"version":{}}}', { kind: 'greeting' }],
    ['{"return":{"status":"x"},"id":3}', { kind: 'answer', id: 3, value: { status: 'x' } }],
    ['{"event":"STOP","timestamp":{}}', { kind: 'event', name: 'STOP', data: {} }],
    [
      '{"error":{"class":"GenericError","desc":"no"},"id":4}',
      { kind: 'error', id: 4, text: 'GenericError: no' },
    ],
  ])('%s', (line, expected) => {
    expect(classify(line)).toEqual(expected);
  });
});

describe('the command line', () => {
  const options = {
    accel: 'kvm',
    firmware: 'guest.bin',
    memoryMiB: 256,
    sockets: { monitor: '/a,b/q.qmp', serial: '/a,b/q.tty' },
  } as const;

  test('doubles commas in paths', () => {
    const line = qemuArguments({
      ...options,
      disk: '/a,b/d',
      ram: { path: '/a,b/r', share: true },
    });
    expect(line.join(' ').match(/\/a,,b\//g)).toHaveLength(4);
    expect(line.join(' ')).not.toMatch(/\/a,b\//);
  });

  test('maps a template privately for a clone, shared for its source', () => {
    const shared = (share: boolean): string =>
      qemuArguments({ ...options, ram: { path: '/r', share } }).join(' ');
    expect(shared(true)).toContain('share=on');
    expect(shared(false)).toContain('share=off');
    expect(shared(false)).toContain('memory-backend=ram');
    expect(qemuArguments(options).join(' ')).not.toContain('memory-backend');
  });

  test('waits for a migration, or for the monitor, or for nothing', () => {
    expect(qemuArguments({ ...options, wait: 'incoming' })).toContain('defer');
    expect(qemuArguments({ ...options, wait: 'paused' })).toContain('-S');
    expect(qemuArguments(options)).not.toContain('-S');
  });
});
