import { setTimeout as sleep } from 'node:timers/promises';
import { beforeAll, describe, expect, it } from 'vitest';
import { MSR, Pool, type RawVcpuState, Snapshot, Vm } from '../../../lib/index.js';
import { REAL_CLOCK } from '../support/host.js';
import { bootGuest, tracked, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

/** How long a snapshot lies, in ms. */
const GAP = 2000;

const KVMCLOCK = 0;
const FLAGS = 8;
const REALTIME = 16;
const KVM_CLOCK_REALTIME = 1 << 2;

/** kvmclock and, if they are the machine's own, each vCPU's TSC, in ms. */
type Clocks = number[];

/** KVM on PVM gives every machine the TSC of the host: setting it does nothing. */
let ownTsc = false;
beforeAll(async () => {
  await using vm = await Vm.create();
  await vm.vcpus[0]!.setMsrs([{ index: MSR.IA32_TSC as number, data: 0n }]);
  const [tsc] = await vm.vcpus[0]!.getMsrs([MSR.IA32_TSC as number]);
  ownTsc = tsc!.data < BigInt(1e9);
});

function tscOf({ msrs, tsc_khz }: RawVcpuState): number {
  const entries = Buffer.from(msrs);
  let at = 0;
  while (entries.readUInt32LE(at) !== MSR.IA32_TSC) at += 16;
  return Number(entries.readBigUInt64LE(at + 8)) / tsc_khz;
}

async function clocks(of: Vm): Promise<Clocks> {
  const { vm, vcpus } = await of.saveState();
  const kvmclock = Number(Buffer.from(vm.clock).readBigUInt64LE(KVMCLOCK)) / 1e6;
  return [kvmclock, ...(ownTsc ? vcpus.map(tscOf) : [])];
}

/** How much later `now` is by each clock. */
const since = (then: Clocks, now: Clocks): number[] => now.map((ms, i) => ms - then[i]!);

/** What clocks of two kinds may differ by, in ms; all else is measured, however slow the host is. */
const JITTER = 100;

/** `then` was at the host's time `at`: the snapshot has lain for GAP since, and nothing of that shows. */
function expectKept(then: Clocks, now: Clocks, at: number): void {
  const most = Date.now() - at - GAP + JITTER;
  for (const ms of since(then, now)) {
    expect(ms).toBeGreaterThanOrEqual(0);
    expect(ms).toBeLessThan(most);
  }
}

/** All of the time since shows, `passed` at least. */
function expectMoved(then: Clocks, now: Clocks, at: number, passed: number): void {
  const most = Date.now() - at + JITTER;
  for (const ms of since(then, now)) {
    expect(ms).toBeGreaterThanOrEqual(passed - JITTER);
    expect(ms).toBeLessThan(most);
  }
}

/** A paused machine of two vCPUs, and its clocks as they were between the times `at` and `read`. */
async function paused(): Promise<{ vm: Vm; then: Clocks; at: number; read: number }> {
  const vm = await bootGuest('counter', { vcpus: 2, irqchip: true });
  await vm.pause();
  const at = Date.now();
  return { vm, at, then: await clocks(vm), read: Date.now() };
}

describe('clocks of clones', REAL_CLOCK, () => {
  it('go on from where they stood, or show the time since, as is wanted', async () => {
    const { vm, then, at, read } = await paused();
    using instant = await vm.snapshot();
    await sleep(GAP);
    const kept = tracked(await instant.restore());
    expectKept(then, await clocks(kept), at);
    const passed = Date.now() - read;
    const [moved] = (await instant.fork({ count: 1, identity: { clock: 'host' } })).map(tracked);
    expectMoved(then, await clocks(moved!), at, passed);
    await moved!.resume();
    await untilCounted(moved!);
  });

  it('the same from a store, where only the files know when it was', async () => {
    const store = scratch();
    const { vm, then, at, read } = await paused();
    (await vm.snapshot({ store, tag: 'it' })).close();
    await sleep(GAP);
    using snapshot = await Snapshot.open(store, 'it');
    expectKept(then, await clocks(tracked(await snapshot.restore())), at);
    const passed = Date.now() - read;
    const moved = tracked(await snapshot.restore({ identity: { clock: 'host' } }));
    expectMoved(then, await clocks(moved), at, passed);
  });

  it("the same for resets and a pool's machines", async () => {
    const { vm, then, at, read } = await paused();
    using instant = await vm.snapshot();
    await using pool = await Pool.create(instant, { size: 1 });
    await sleep(GAP);
    await vm.reset(instant);
    expectKept(then, await clocks(vm), at);
    let passed = Date.now() - read;
    await vm.reset(instant, { identity: { clock: 'host' } });
    expectMoved(then, await clocks(vm), at, passed);
    await using kept = await pool.get();
    expectKept(then, await clocks(kept), at);
    passed = Date.now() - read;
    await using moved = await pool.get({ identity: { clock: 'host' } });
    expectMoved(then, await clocks(moved), at, passed);
  });

  it('the CMOS clock shows the time of the host either way', async () => {
    const vm = await bootGuest('counter');
    using instant = await vm.snapshot();
    await sleep(GAP);
    for (const clock of ['keep', 'host'] as const) {
      const clone = tracked(await instant.restore({ identity: { clock } }));
      const { cmos } = (await clone.saveState()).devices;
      // Its time is the host's and this.
      expect(Number(cmos!.offset_us)).toBe(0);
    }
  });

  it('every state says when it was, by the time of the host', async () => {
    const { vm, at } = await paused();
    const clock = Buffer.from((await vm.saveState()).vm.clock);
    expect(clock.readUInt32LE(FLAGS) & KVM_CLOCK_REALTIME).not.toBe(0);
    const saved = Number(clock.readBigUInt64LE(REALTIME)) / 1e6;
    expect(saved).toBeGreaterThan(at - JITTER);
    expect(saved).toBeLessThan(Date.now() + JITTER);
  });
});
