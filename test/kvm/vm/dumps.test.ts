/** Guest memory is in no core dump, whatever has been done with it: proc(5), VmFlags of smaps. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Pool, SnapshotStore, type Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { tracked, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { bootWriter } from '../support/writer.js';

interface Mapped {
  name: string;
  /** Bytes. */
  size: number;
  dumped: boolean;
}

function mappings(): Mapped[] {
  const text = readFileSync('/proc/self/smaps', 'latin1');
  return text.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).map((entry) => {
    const [, start = '0', end = '0', name = ''] =
      /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)$/m.exec(entry) ?? [];
    return {
      name,
      size: Number(BigInt(`0x${end}`) - BigInt(`0x${start}`)),
      dumped: !/^VmFlags:.* dd\b/m.test(entry),
    };
  });
}

const hidden = (): number =>
  mappings().reduce((sum, { dumped, size }) => sum + (dumped ? 0 : size), 0);

/** All of so many machines is hidden, and so is whatever is named after guest memory. */
function expectHidden(what: string, before: number, machines: number, stores: string): void {
  const named = mappings().filter(
    ({ name }) => name.includes('kvmsnap-') || name.includes('kvm-vcpu') || name.includes(stores),
  );
  expect(named.length, what).toBeGreaterThan(0);
  const dumped = named.filter((mapping) => mapping.dumped && !mapping.name.endsWith('.node'));
  expect(dumped, what).toEqual([]);
  expect(hidden() - before, what).toBeGreaterThanOrEqual(machines * MiB(16));
}

it('guest memory is hidden from core dumps after each thing that maps it', async () => {
  const path = join(scratch(), 'store');
  const store = await SnapshotStore.open(path, { create: true, durable: false });
  const before = hidden();
  const vm = await bootWriter(200);
  expectHidden('create', before, 1, path);

  using live = await vm.snapshot();
  expectHidden('freeze', before, 1, path);
  await untilCounted(vm, 1n, 'writer');
  const full = await vm.snapshot({ store });
  await untilCounted(vm, 1n, 'writer');
  using increment = await vm.snapshot({ store, parent: full });
  expectHidden('freeze again', before, 1, path);

  const machines: Vm[] = [vm];
  const [child] = (await vm.fork(1)) as [Vm];
  machines.push(tracked(child));
  expectHidden('fork', before, machines.length, path);
  await child.resume();
  await untilCounted(child, 1n, 'writer');
  await vm.reset(live);
  expectHidden('reset', before, machines.length, path);

  const restored = tracked(await increment.restore());
  machines.push(restored);
  expectHidden('restore', before, machines.length, path);
  await restored.reset(increment);
  await restored.reset(full);
  expectHidden('reset to another', before, machines.length, path);
  full.close();

  const onDemand = tracked(await increment.restore({ paging: {} }));
  machines.push(onDemand);
  expectHidden('on demand', before, machines.length, path);
  await onDemand.start();
  await untilCounted(onDemand, 1n, 'writer');
  await onDemand.pageIn();
  expectHidden('paged in', before, machines.length, path);

  await using pool = await Pool.create(live, { size: 1 });
  const pooled = tracked(await pool.get());
  machines.push(pooled);
  expectHidden('pool', before, machines.length, path);
  await pooled.close();
  machines.pop();
  tracked(await pool.get());
  expectHidden('pool again', before, machines.length + 1, path);
});
