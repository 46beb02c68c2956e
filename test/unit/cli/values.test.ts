import { InvalidArgumentError } from 'commander';
import { describe, expect, it } from 'vitest';
import { collectDevices } from '../../../lib/cli/options.js';
import {
  collectPairs,
  parseAddress,
  parseDetachKey,
  parseDuration,
  parseInteger,
  parseName,
  parsePort,
  parseRing,
  parseSize,
} from '../../../lib/cli/values.js';

describe('what users type', () => {
  it.each([
    ['256M', 256 * 2 ** 20],
    ['256MiB', 256 * 2 ** 20],
    ['256mb', 256 * 2 ** 20],
    ['1.5G', 1.5 * 2 ** 30],
    ['4096', 4096],
    ['64 K', 65_536],
  ])('takes %s as a size', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each(['', '0', '-1', '1X', '1.0000001M', 'M', '1e9', '0.3K', '99999999T', '1 2M'])(
    'refuses %j as a size',
    (text) => {
      expect(() => parseSize(text)).toThrow(InvalidArgumentError);
    },
  );

  it('takes addresses up to 64 bits', () => {
    expect(parseAddress('0xffffffffffffffff')).toBe(2n ** 64n - 1n);
    expect(parseAddress('4096')).toBe(4096n);
    for (const text of ['', '0x', '0x1ffffffffffffffff', '18446744073709551616', '-1', '1_0']) {
      expect(() => parseAddress(text)).toThrow(InvalidArgumentError);
    }
  });

  it('takes ports of 16 bits', () => {
    expect([parsePort('0xf4'), parsePort('0'), parsePort('65535')]).toEqual([0xf4, 0, 65_535]);
    for (const text of ['65536', '0x10000', '-1', '']) {
      expect(() => parsePort(text)).toThrow(InvalidArgumentError);
    }
  });

  it('keeps numbers in their range', () => {
    const parse = parseInteger(1, 255);
    expect([parse('1'), parse('255')]).toEqual([1, 255]);
    for (const text of ['0', '256', '1.5', '0x10', ' 1', '']) {
      expect(() => parse(text)).toThrow(InvalidArgumentError);
    }
    expect([parseRing('0'), parseRing('3')]).toEqual([0, 3]);
    expect(() => parseRing('1')).toThrow(InvalidArgumentError);
  });

  it('refuses names that would leave the runtime directory', () => {
    expect(parseName('web-1.a_b')).toBe('web-1.a_b');
    for (const text of ['', '.', '..', '../x', 'a/b', '.hidden', 'a\0b', 'a b', 'x'.repeat(41)]) {
      expect(() => parseName(text)).toThrow(InvalidArgumentError);
    }
  });

  it('reads detach keys as terminals write them', () => {
    expect(parseDetachKey('ctrl-]')).toEqual({ byte: 0x1d, label: 'Ctrl-]' });
    expect(parseDetachKey('^A')?.byte).toBe(1);
    expect(parseDetachKey('none')).toBeUndefined();
    for (const text of ['', ']', 'ctrl-', 'ctrl-1', 'alt-x']) {
      expect(() => parseDetachKey(text)).toThrow(InvalidArgumentError);
    }
  });

  it('reads durations', () => {
    const texts = ['0', '100ms', '90s', '7d'];
    expect(texts.map(parseDuration)).toEqual([0, 100, 90_000, 604_800_000]);
    for (const text of ['1', '1y', '-1s', '']) {
      expect(() => parseDuration(text)).toThrow(InvalidArgumentError);
    }
  });

  it('gathers repeated options', () => {
    expect(collectPairs('b=x=y', collectPairs('a=1'))).toEqual({ a: '1', b: 'x=y' });
    expect(() => collectPairs('=1')).toThrow(InvalidArgumentError);
    expect(collectDevices('debug-port=off', collectDevices('serial=on'))).toEqual({
      serial: true,
      debugPort: false,
    });
    for (const text of ['serial', 'serial=maybe', 'constructor=on', 'floppy=on']) {
      expect(() => collectDevices(text)).toThrow(InvalidArgumentError);
    }
  });
});
