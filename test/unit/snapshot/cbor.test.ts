import { decode as decodeWithCborX } from 'cbor-x';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CborValue, decodeCbor, encodeCbor } from '../../../lib/snapshot/cbor.js';

const hex = (text: string): CborValue => decodeCbor(Buffer.from(text, 'hex'), 'test');

const value = fc.letrec<{ any: CborValue }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    fc.integer({ min: -(2 ** 32) + 1, max: 2 ** 32 - 1 }),
    fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n }),
    fc.string(),
    fc.uint8Array({ maxLength: 400 }),
    fc.array(tie('any'), { maxLength: 30 }),
    fc.dictionary(
      fc.string({ minLength: 1 }).filter((key) => key !== '__proto__'),
      tie('any'),
      { maxKeys: 30 },
    ) as fc.Arbitrary<CborValue>,
  ),
})).any;

describe('CBOR', () => {
  it('comes back as it went in: numbers as numbers, 64-bit fields as bigint', () => {
    fc.assert(
      fc.property(value, (input) => {
        expect(decodeCbor(encodeCbor(input), 'test')).toEqual(plain(input));
      }),
    );
  });

  it('is what another decoder reads, too', () => {
    fc.assert(
      fc.property(value, (input) => {
        const bytes = encodeCbor(input);
        expect(plain(decodeWithCborX(bytes))).toEqual(decodeCbor(bytes, 'test'));
      }),
    );
  });

  it('reads any bytes without other errors than its own', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        try {
          decodeCbor(bytes, 'test');
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
        }
      }),
      { numRuns: 5000 },
    );
  });

  it('keeps 64-bit fields apart from small numbers', () => {
    expect(hex('05')).toBe(5);
    expect(hex('1b0000000000000005')).toBe(5n);
    expect(hex('3bffffffffffffffff')).toBe(-(2n ** 64n));
    expect(hex('3affffffff')).toBe(-(2 ** 32));
  });

  it.each([
    ['nothing', ''],
    ['a head without its argument', '19ff'],
    ['a string beyond the end', '43aabb'],
    ['an array beyond the end', '8201'],
    ['a map without its last value', 'a16161'],
    ['two values', '0101'],
    ['5 in two bytes', '1805'],
    ['255 in three bytes', '1900ff'],
    ['65535 in five bytes', '1a0000ffff'],
    ['a length in more bytes than needed', '580100'],
    ['a reserved head', '1c'],
    ['an indefinite string', '5f4100ff'],
    ['an indefinite map', 'bfff'],
    ['a break', 'ff'],
    ['true', 'f5'],
    ['null', 'f6'],
    ['undefined', 'f7'],
    ['half a float', 'f97e00'],
    ['a date', 'c11a00000000'],
    ['a big number', 'c249010000000000000000'],
    ['a typed array', 'd8404100'],
    ['a record definition of cbor-x', 'd9dfff83190001816161 01'.replace(' ', '')],
    ['a number as key', 'a10101'],
    ['a key twice', 'a2616101616102'],
    ['text that is not UTF-8', '61ff'],
  ])('refuses %s', (_, bytes) => {
    expect(() => hex(bytes)).toThrow(expect.objectContaining({ code: 'ERR_SNAPSHOT_FORMAT' }));
  });

  it('gives maps no prototype to spoil', () => {
    const map = hex('a1695f5f70726f746f5f5fa1617801') as Record<string, unknown>;
    expect(Object.getPrototypeOf(map)).toBeNull();
    expect((map as { x?: unknown }).x).toBeUndefined();
    expect(({} as { x?: unknown }).x).toBeUndefined();
  });

  it('gives byte strings memory of their own', () => {
    const source = Buffer.from('420102', 'hex');
    const bytes = decodeCbor(source, 'test') as Uint8Array;
    source.fill(0);
    expect([...bytes]).toEqual([1, 2]);
  });
});

/** Maps without prototype and Buffers compare unequal to their like. */
function plain(input: unknown): unknown {
  if (input instanceof Uint8Array) return new Uint8Array(input);
  if (Array.isArray(input)) return input.map(plain);
  if (typeof input !== 'object' || input === null) return input;
  const map = Object.create(null);
  for (const [key, inner] of Object.entries(input)) map[key] = plain(inner);
  return map;
}
