/** A ring that is too small: KVM that emulates ring 0 (PVM) writes on over entries nobody has taken. */
import { describe, expect, it } from 'vitest';
import { MiB } from '../../../lib/units.js';
import {
  bootDirtier,
  DIRTY_BASE,
  expectNone,
  framesOf,
  harvester,
  missed,
  write,
} from '../support/dirtier.js';

/** The least that every host takes. */
const ENTRIES = 1024;
const RANGE = 8000;

describe.each([{ vcpus: 1 }, { vcpus: 2 }])('a small ring, ring 0, vCPUs: $vcpus', ({ vcpus }) => {
  const base = (vcpu: number) => DIRTY_BASE + BigInt(vcpu * MiB(48));

  async function boot() {
    const vm = await bootDirtier({ dirtyRing: ENTRIES, ring: 0, vcpus });
    const { next, stop } = await harvester(vm, 'ring');
    const all = async (pages: number, seed = 0): Promise<number[]> => {
      const written = await Promise.all(
        Array.from({ length: vcpus }, (_, vcpu) =>
          write(vm, { pages, seed, range: seed === 0 ? pages : RANGE, base: base(vcpu), vcpu }),
        ),
      );
      return written.flat();
    };
    return { vm, next, stop, all };
  }

  it('loses no page, and the guest goes on', async () => {
    const { vm, next, stop, all } = await boot();
    for (const pages of [100, 3000, 12_000]) {
      for (const seed of [0, 0x9e3779b9]) {
        const written = await all(pages, seed);
        expectNone(missed(written, await next()));
      }
    }
    await stop();
    expect(vm.status).toBe('running');
  });

  it('names what is written and nothing else, once it is large enough again', async () => {
    const { next, stop, all } = await boot();
    for (let round = 1; round <= 3; round++) {
      await all(12_000);
      // KVM may find the ring full of lost entries only when the guest goes on, after a harvest.
      let written: number[] = [];
      let epoch = await next();
      for (let more = 0; more < 4; more++) {
        written = await all(8);
        epoch = await next();
        expectNone(missed(written, epoch));
      }
      // The guest's own words and journals are a few pages more.
      expect(epoch.count).toBeLessThan(100);
      const quiet = framesOf(await next());
      expect(written.filter((frame) => quiet.has(frame))).toEqual([]);
    }
    await stop();
  });

  it('loses nothing while it is harvested all the time', async () => {
    const { next, stop, all } = await boot();
    const epochs = [await next()];
    let done = false;
    const writing = all(12_000, 7).finally(() => {
      done = true;
    });
    while (!done) epochs.push(await next());
    const written = await writing;
    epochs.push(await next());
    expectNone(missed(written, ...epochs));
    await stop();
  });
});
