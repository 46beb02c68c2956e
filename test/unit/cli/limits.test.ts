import { describe, expect, it } from 'vitest';
import { collectLimits } from '../../../lib/cli/options.js';
import { defaultLimits, limitsOf, requireWithin } from '../../../lib/snapshot/limits.js';

describe('--limit', () => {
  it('is gathered over repetitions, each name once', () => {
    const first = collectLimits('readBytes=1024');
    expect(collectLimits('vcpus=8', first)).toEqual({ readBytes: 1024, vcpus: 8 });
    expect(collectLimits('readBytes=7', first)).toEqual({ readBytes: 7 });
  });

  it.each([
    'readBytes',
    'readBytes=',
    'readBytes=-1',
    'readBytes=1e9',
    'reads=1',
    '=1',
    'constructor=1',
  ])('%s is no limit', (text) => {
    expect(() => collectLimits(text)).toThrow(
      expect.objectContaining({ code: 'commander.invalidArgument' }),
    );
  });
});

it('an error says how to raise the limit, in the library and on the command line', () => {
  const limits = limitsOf({ extents: 5 });
  requireWithin(limits, 'extents', 5, 'the snapshot has many extents');
  expect(() => requireWithin(limits, 'extents', 6, 'the snapshot has many extents')).toThrow(
    /limits\.extents allows 5\..*limits: \{ extents: 6 \}.*--limit extents=6/,
  );
  expect(limitsOf().extents).toBe(defaultLimits().extents);
});
