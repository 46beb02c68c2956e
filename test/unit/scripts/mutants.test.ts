import { describe, expect, test } from 'vitest';
import { codeOnly, mutantsOf, shuffled } from '../../../scripts/mutate/mutants.mjs';

const faults = (source: string) =>
  mutantsOf('a.cc', source).map(({ kind, before, after }) => `${kind}: ${before} -> ${after}`);

const inFunction = (...lines: string[]) => `void f() {\n${lines.join('\n')}\n}\n`;

describe('mutants', () => {
  test('conditions are negated, comparisons and connectives turned', () => {
    expect(faults(inFunction('  if (a < b && ready(c)) return true;'))).toEqual([
      'negate a condition: a < b && ready(c) -> !(a < b && ready(c))',
      'turn an operator: < -> <=',
      'turn an operator: && -> ||',
      'turn an operator: true -> false',
    ]);
    expect(faults(inFunction('  while (a == b) c = d;'))).toEqual(['turn an operator: == -> !=']);
  });

  test('what has no condition that could be negated is left alone', () => {
    expect(faults(inFunction('  if (auto x = find(y)) return x;'))).toEqual([]);
    expect(faults(inFunction('  if (int x = 1; ready(x)) return x;'))).toEqual([]);
  });

  test('calls are left out, and two in a row swapped', () => {
    const source = inFunction(
      '  first.load(a,',
      '             b);',
      '  second();',
      '  x = third();',
    );
    expect(faults(source)).toEqual([
      'drop a call: first.load(a,\n             b); -> ;',
      'drop a call: second(); -> ;',
      'swap calls: first.load(a,\n             b);\n  second(); -> second();\n  first.load(a,\n             b);',
    ]);
  });

  test('declarations, results that are used, and calls in other blocks are no such calls', () => {
    const lines = ['  std::lock_guard lock(mutex);', '  auto x = call();', '  if (x) {', '  }'];
    expect(faults(inFunction(...lines)).filter((fault) => !fault.startsWith('negate'))).toEqual([]);
    const apart = inFunction('  one();', '  {', '    two();', '  }');
    expect(faults(apart).filter((fault) => fault.startsWith('swap'))).toEqual([]);
  });

  test('nothing in comments and strings is touched', () => {
    const source = '// a == b\n/* if (x) y();\n */ auto s = "a == \\" b";\n';
    expect(codeOnly(source)).toHaveLength(source.length);
    expect(faults(source)).toEqual([]);
  });

  test('each holds the whole file with its one fault', () => {
    const source = inFunction('  if (a == b) return;', '  if (a == b) return;');
    const [first, second] = mutantsOf('a.cc', source);
    expect(first?.mutated).toBe(inFunction('  if (a != b) return;', '  if (a == b) return;'));
    expect(second?.mutated).toBe(inFunction('  if (a == b) return;', '  if (a != b) return;'));
    expect(second?.line).toBe(3);
  });

  test('keys stay when lines move, and tell apart what looks the same', () => {
    const lines = ['  if (a == b) return;', '  if (a == b) return;', '  call();'];
    const keys = mutantsOf('a.cc', inFunction(...lines)).map(({ key }) => key);
    expect(new Set(keys).size).toBe(keys.length);
    const moved = mutantsOf('a.cc', `// more\n\n${inFunction(...lines)}`).map(({ key }) => key);
    expect(moved).toEqual(keys);
  });

  test('a seed gives an order', () => {
    const items = Array.from({ length: 50 }, (_, i) => ({ key: `${i}` }));
    expect(shuffled(items, '7')).toEqual(shuffled([...items].reverse(), '7'));
    expect(shuffled(items, '7')).not.toEqual(shuffled(items, '8'));
    expect(new Set(shuffled(items, '7'))).toEqual(new Set(items));
  });
});
