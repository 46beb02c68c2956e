/**
 * Random sequences of all that is done to machines and snapshots, against a model of what they have to
 * be: memory, registers, devices, dirty pages.
 */
import { rmSync } from 'node:fs';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SnapshotStore } from '../../../lib/index.js';
import { hangLimit, SLOWDOWN } from '../support/host.js';
import { scratch } from '../support/scratch.js';
import { sequences } from './steps.js';
import { World } from './world.js';

/** `KVMSNAP_SEQUENCES=2000` is what a release is tested with. */
const SEQUENCES = Number(process.env.KVMSNAP_SEQUENCES ?? 100 / SLOWDOWN);
/** What a failure printed, to see it again: `KVMSNAP_SEED=1234`, or `1234 0:1:2` with the path. */
const [seed, path] = (process.env.KVMSNAP_SEED ?? '').split(' ');

it(
  `${SEQUENCES} sequences of steps leave every machine and snapshot as the model says`,
  async () => {
    const directory = scratch();
    let number = 0;
    let steps = 0;
    const property = fc.asyncProperty(sequences, async (sequence) => {
      const at = `${directory}/${number++}`;
      const store = await SnapshotStore.open(at, { create: true, durable: false });
      const world = new World(sequence.kind, store);
      try {
        await world.run(sequence);
      } finally {
        steps += world.done;
        rmSync(at, { recursive: true });
      }
    });
    await fc.assert(property, {
      numRuns: SEQUENCES,
      ...(seed ? { seed: Number(seed) } : {}),
      ...(path ? { path } : {}),
    });
    console.log(`${number} sequences, ${steps} steps`);
    expect(steps).toBeGreaterThan(number * 3);
  },
  hangLimit(SEQUENCES, 3000),
);
