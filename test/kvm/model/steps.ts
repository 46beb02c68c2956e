/** Steps of a sequence. Which machine or snapshot a number means is found when the step is done. */
import fc from 'fast-check';
import { TRACKERS_HERE } from '../support/dirtier.js';
import type { Kind } from './machine.js';
import { PAGE } from './memory.js';

/** Rather the first ones: steps that have to do with each other. */
const pick = fc.oneof(fc.nat({ max: 1 }), fc.nat({ max: 63 }));
const half = fc.boolean();
const place = { area: pick, at: fc.nat({ max: 0xfffff }) };
/** Rather a page that others have too than one of its own. */
const close = fc.oneof(
  fc.nat({ max: 0xfffff }),
  fc.nat({ max: 7 }).map((page) => page * PAGE + 64),
);

const step = <Name extends string, Arguments>(
  name: Name,
  fields: { [Key in keyof Arguments]: fc.Arbitrary<Arguments[Key]> },
) => fc.record({ step: fc.constant(name), ...fields }) as fc.Arbitrary<{ step: Name } & Arguments>;

const stepArbitrary = fc.oneof(
  {
    weight: 8,
    arbitrary: step('job', {
      machine: pick,
      vcpu: pick,
      area: pick,
      at: close,
      stride: fc.constantFrom(8, 40, PAGE, 3 * PAGE),
      count: fc.integer({ min: 1, max: 60 }),
      seed: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      alone: half,
    }),
  },
  {
    weight: 5,
    arbitrary: step('write', {
      machine: pick,
      ...place,
      length: fc.constantFrom(1, 8, 100, PAGE, 2 * PAGE, 9 * PAGE, 20 * PAGE - 3),
      // 0: zeros, also over what was not.
      value: fc.nat({ max: 3 }),
    }),
  },
  {
    weight: 1,
    arbitrary: step('registers', {
      machine: pick,
      vcpu: pick,
      value: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    }),
  },
  { weight: 1, arbitrary: step('type', { machine: pick, byte: fc.nat({ max: 255 }) }) },
  { weight: 3, arbitrary: step('start', { machine: pick }) },
  { weight: 2, arbitrary: step('pause', { machine: pick }) },
  { weight: 1, arbitrary: step('kill', { machine: pick }) },
  { weight: 1, arbitrary: step('close', { machine: pick }) },
  { weight: 4, arbitrary: step('freeze', { machine: pick, pause: half }) },
  { weight: 3, arbitrary: step('save', { machine: pick, pause: half }) },
  { weight: 4, arbitrary: step('increment', { machine: pick, parent: pick, pause: half }) },
  { weight: 4, arbitrary: step('fork', { machine: pick, count: fc.integer({ min: 1, max: 2 }) }) },
  { weight: 4, arbitrary: step('restore', { snapshot: pick, byFork: half }) },
  { weight: 2, arbitrary: step('pool', { snapshot: pick }) },
  { weight: 8, arbitrary: step('reset', { machine: pick, snapshot: pick }) },
  { weight: 3, arbitrary: step('back', { machine: pick }) },
  { weight: 2, arbitrary: step('merge', { snapshot: pick, ancestor: pick }) },
  { weight: 1, arbitrary: step('reopen', { snapshot: pick }) },
  { weight: 2, arbitrary: step('delete', { snapshot: pick, collect: half }) },
  {
    weight: 3,
    arbitrary: step('track', { machine: pick, tracker: fc.constantFrom(...TRACKERS_HERE) }),
  },
  { weight: 3, arbitrary: step('harvest', { machine: pick }) },
  { weight: 1, arbitrary: step('untrack', { machine: pick }) },
  { weight: 3, arbitrary: step('check', { machine: pick }) },
);

export type Step = typeof stepArbitrary extends fc.Arbitrary<infer T> ? T : never;

export interface Sequence {
  kind: Kind;
  steps: Step[];
}

/** Most are of the machine that is made fastest. */
const rarely = fc.nat({ max: 3 }).map((n) => n === 3);

export const sequences: fc.Arbitrary<Sequence> = fc.record({
  kind: fc.record({
    vcpus: rarely.map((two): 1 | 2 => (two ? 2 : 1)),
    irqchip: rarely,
    ring: rarely,
    slot: half,
  }),
  steps: fc.array(stepArbitrary, { minLength: 5, maxLength: 40, size: 'max' }),
});
