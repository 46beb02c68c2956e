import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { KvmsnapError } from '../../../lib/errors.js';
import type { NativeMachine } from '../../../lib/native/binding.js';
import { HaltWatch } from '../../../lib/vm/halt-watch.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** A machine that counts how often it was looked at. */
function machine(mark?: string) {
  const fake = {
    status: 'running',
    uses: 0,
    looks: 0,
    mark,
    deviceAccesses: () => fake.uses,
    readMemory: () => {
      if (fake.mark === undefined) throw new KvmsnapError('ERR_STATE', 'still to come');
      return Buffer.from(fake.mark);
    },
    endIfHalted: async () => {
      fake.looks++;
      throw new KvmsnapError('ERR_CLOSED', 'closed meanwhile');
    },
  };
  const watch = new HaltWatch(fake as unknown as NativeMachine);
  watch.begin();
  return { fake, watch };
}
const seconds = (count: number) => vi.advanceTimersByTimeAsync(count * 1000);

describe('A machine is looked at', () => {
  it('once it is quiet, and again when it was not', async () => {
    const { fake } = machine('KVMSNAP1');
    for (let second = 0; second < 5; second++) {
      fake.uses++;
      await seconds(1);
    }
    expect(fake.looks).toBe(0);
    await seconds(10);
    expect(fake.looks).toBe(1);
    fake.uses++;
    await seconds(10);
    expect(fake.looks).toBe(2);
  });

  it('not while it stands, and again when it goes on', async () => {
    const { fake, watch } = machine('KVMSNAP1');
    await seconds(3);
    fake.status = 'paused';
    await seconds(3);
    expect(fake.looks).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
    fake.status = 'running';
    watch.begin();
    watch.begin();
    expect(vi.getTimerCount()).toBe(1);
    await seconds(3);
    expect(fake.looks).toBe(2);
  });

  it('not when no firmware booted it', async () => {
    const { fake } = machine('KVMSNAP2');
    await seconds(10);
    expect(fake.looks).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('only once the page is there that says so', async () => {
    const { fake } = machine();
    await seconds(10);
    expect(fake.looks).toBe(0);
    fake.mark = 'KVMSNAP1';
    await seconds(2);
    expect(fake.looks).toBe(1);
  });
});
