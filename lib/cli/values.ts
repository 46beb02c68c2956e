/** What users type: sizes, addresses, names, ports, keys. Wrong values are usage errors. */
import { InvalidArgumentError } from 'commander';

const UNITS: Record<string, number> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** `256M`, `1.5G`, `4096`: bytes, in powers of 1024. `MB` and `MiB` mean the same as `M`. */
export function parseSize(text: string): number {
  const match = /^(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const bytes = match ? Number(match[1]) * (UNITS[(match[2] ?? '').toUpperCase()] as number) : -1;
  if (!Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new InvalidArgumentError('Give a size such as 256M or 1.5G.');
  }
  return bytes;
}

const MAX_ADDRESS = 2n ** 64n - 1n;

/** `0x100000` or decimal. */
export function parseAddress(text: string): bigint {
  const value = /^(0x[0-9a-f]{1,16}|\d{1,20})$/i.test(text) ? BigInt(text) : -1n;
  if (value < 0n || value > MAX_ADDRESS) {
    throw new InvalidArgumentError('Give an address such as 0x100000.');
  }
  return value;
}

export function parsePort(text: string): number {
  const value = /^(0x[0-9a-f]{1,4}|\d{1,5})$/i.test(text) ? Number(text) : -1;
  if (value < 0 || value > 0xffff) {
    throw new InvalidArgumentError('Give a port from 0 to 0xffff.');
  }
  return value;
}

/** A parser of whole numbers from `min` to `max`. */
export const parseInteger =
  (min: number, max: number) =>
  (text: string): number => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`);
    }
    return value;
  };

export function parseRing(text: string): 0 | 3 {
  if (text !== '0' && text !== '3') throw new InvalidArgumentError('Give 0 or 3.');
  return text === '0' ? 0 : 3;
}

/** Names are parts of file names and of socket paths, of which Linux takes 107 bytes. */
export const MACHINE_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$/;

export function parseName(text: string): string {
  if (!MACHINE_NAME.test(text)) {
    throw new InvalidArgumentError(
      'A name has 1 to 40 letters, digits, dots, dashes and underscores, and starts with a ' +
        'letter or digit.',
    );
  }
  return text;
}

/** `KEY=VALUE`, gathered over the repetitions of an option. */
export function collectPairs(
  text: string,
  before: Record<string, string> = {},
): Record<string, string> {
  const at = text.indexOf('=');
  if (at < 1) throw new InvalidArgumentError('Give it as KEY=VALUE.');
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}

const DURATION_UNITS: Record<string, number> = { ms: 1, s: 1e3, m: 60e3, h: 3600e3, d: 86400e3 };

/** `0`, `100ms`, `30s`, `10m`, `24h`, `7d`: milliseconds. */
export function parseDuration(text: string): number {
  if (text === '0') return 0;
  const match = /^(\d{1,6})(ms|[smhd])$/.exec(text);
  if (!match) throw new InvalidArgumentError('Give a duration such as 100ms, 30s, 10m, 24h or 7d.');
  return Number(match[1]) * (DURATION_UNITS[match[2] as string] as number);
}

/** A control key and how it is shown. `undefined`: no key. */
export interface DetachKey {
  byte: number;
  label: string;
}

/** `ctrl-]`, `^]` or `none`. Ctrl with a character is its code without bits 5 and 6. */
export function parseDetachKey(text: string): DetachKey | undefined {
  if (text === 'none') return undefined;
  const key = /^(?:ctrl-|\^)([a-z@[\]\\^_])$/i.exec(text)?.[1]?.toUpperCase();
  if (key === undefined) {
    throw new InvalidArgumentError('Give a key such as ctrl-] or ctrl-a, or none.');
  }
  return { byte: key.charCodeAt(0) & 0x1f, label: `Ctrl-${key}` };
}
