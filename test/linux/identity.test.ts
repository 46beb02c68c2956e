import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { Snapshot, type Vm } from '../../lib/index.js';
import { MiB } from '../../lib/units.js';
import { boot } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { scratchStore } from './support/scratch.js';
import { Terminal } from './support/terminal.js';

const RESEEDED = 'random: crng reseeded due to virtual machine fork';

/** Until the guest has nothing more to do with what it was told. */
const SETTLED_MS = 500;

/** Debian's cloud kernel has no driver for the VM generation ID; the regular one has. */
const bootRegular = () =>
  boot({ entry: { kernel: 'vmlinux', flavour: 'regular' }, memory: MiB(256) });

interface Clone {
  vm: Vm;
  terminal: Terminal;
}

async function run(vm: Vm): Promise<Clone> {
  const terminal = new Terminal(vm.console, vm.console);
  await vm.start();
  await sleep(SETTLED_MS);
  return { vm, terminal };
}

const reseeds = async ({ terminal }: Pick<Clone, 'terminal'>): Promise<number> =>
  (await terminal.run('dmesg')).split('\n').filter((line) => line.includes(RESEEDED)).length;
const random = ({ terminal }: Pick<Clone, 'terminal'>): Promise<string> =>
  terminal.run('head -c 16 /dev/urandom | hexdump -ve \'1/1 "%02x"\'');
const date = async ({ terminal }: Pick<Clone, 'terminal'>): Promise<number> =>
  Number(await terminal.run('date +%s'));

describe.skipIf(whyNoLinux())('Clones of a Linux guest', () => {
  test('forks and restores are told, seed anew and read other random numbers; the source is not', async () => {
    const store = scratchStore('identity');
    await using source = await bootRegular();
    const { vm } = source;
    expect(await reseeds(source)).toBe(0);
    const [first, second] = await vm.fork(2);
    using saved = await vm.snapshot({ store });
    saved.close();
    using snapshot = await Snapshot.open(store, saved.digest);
    const clones = [first!, second!, await snapshot.restore()];
    const numbers: string[] = [];
    for (const clone of clones) {
      const running = await run(clone);
      expect(await reseeds(running)).toBe(1);
      numbers.push(await random(running));
      await clone.close();
    }
    expect(new Set(numbers).size).toBe(clones.length);
    expect(await reseeds(source)).toBe(0);
  });

  test('with the generation kept nothing is told, as after a reset that is not asked to', async () => {
    await using source = await bootRegular();
    await source.vm.pause();
    const twins = await source.vm.fork({ count: 2, identity: { generation: 'keep' } });
    for (const twin of twins) {
      const running = await run(twin);
      expect(await reseeds(running)).toBe(0);
      await twin.close();
    }
    // A reset goes back to the very instant, unless it is told not to.
    using instant = await source.vm.snapshot();
    await source.vm.reset(instant);
    await source.vm.resume();
    await sleep(SETTLED_MS);
    expect(await reseeds(source)).toBe(0);
    await source.vm.reset(instant, { identity: { generation: 'new' } });
    await source.vm.resume();
    await sleep(SETTLED_MS);
    expect(await reseeds(source)).toBe(1);
  });

  test('the clock of one is behind by the time since, of the other right', async () => {
    await using source = await boot();
    using instant = await source.vm.snapshot({ then: 'pause' });
    const gap = 20;
    await sleep(gap * 1000);
    const before = Date.now() / 1000;
    const kept = await instant.restore({ identity: { clock: 'keep' } });
    const hosts = await instant.restore({ identity: { clock: 'host' } });
    const times: number[] = [];
    for (const clone of [kept, hosts]) {
      const running = await run(clone);
      times.push(Date.now() / 1000 - (await date(running)));
      await clone.close();
    }
    const [behind, right] = times as [number, number];
    expect(before).toBeGreaterThan(0);
    expect(behind).toBeGreaterThan(gap - 3);
    expect(Math.abs(right)).toBeLessThan(gap / 2);
  });
});
