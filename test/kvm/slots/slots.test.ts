import { describe, expect, it } from 'vitest';
import { GiB, MiB } from '../../../lib/units.js';
import { createVm } from '../support/machines.js';
import { createPorts, type Operation, result, runAgain, runList } from '../support/ports.js';

const AT = 0x20000000n;

describe('memory slots', () => {
  it('are listed by address, with their flags', async () => {
    const vm = await createVm({ memory: GiB(3) + MiB(2), irqchip: false });
    await vm.memory.addSlot({ slot: 7, gpa: 0x200000000n, size: 8192, logDirtyPages: true });
    expect(vm.memory.slots()).toEqual([
      { slot: 0, gpa: 0n, size: GiB(3), logDirtyPages: false, readOnly: false },
      { slot: 1, gpa: 0x100000000n, size: MiB(2), logDirtyPages: false, readOnly: false },
      { slot: 7, gpa: 0x200000000n, size: 8192, logDirtyPages: true, readOnly: false },
    ]);
  });

  it('can be added, used by host and guest, and removed again', async () => {
    const list: Operation[] = [
      { op: 'load', size: 8, address: AT },
      { op: 'store', size: 8, address: AT + 8n, value: 0x1234n },
    ];
    const vm = await createPorts(list);
    await vm.memory.addSlot({ slot: 3, gpa: AT, size: MiB(1) });
    expect(vm.memory.read(AT, MiB(1)).every((byte) => byte === 0)).toBe(true);
    vm.memory.write(AT, Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]));
    expect((await runList(vm, list))[0]).toBe(0x0807060504030201n);
    expect(vm.memory.read(AT + 8n, 8).readBigUInt64LE()).toBe(0x1234n);

    await vm.pause();
    await vm.memory.removeSlot(3);
    expect(vm.memory.slots()).toHaveLength(1);
    expect(() => vm.memory.read(AT, 1)).toThrow(
      expect.objectContaining({ code: 'ERR_GUEST_ADDRESS' }),
    );
    await vm.resume();
    await runAgain(vm);
    // No RAM any more: a read of the bus.
    expect(result(vm, 0)).toBe(0xffff_ffff_ffff_ffffn);

    await vm.pause();
    await vm.memory.addSlot({ slot: 3, gpa: AT, size: 4096 });
    expect(vm.memory.read(AT, 16)).toEqual(Buffer.alloc(16));
    await vm.resume();
    await runAgain(vm);
    expect(result(vm, 0)).toBe(0n);
  });

  it('that are adjacent can be read and written as one', async () => {
    const vm = await createVm({ memory: 8192, irqchip: false });
    await vm.memory.addSlot({ slot: 1, gpa: 8192n, size: 4096 });
    vm.memory.write(8190n, Buffer.from('edge'));
    expect(vm.memory.read(8190n, 4).toString()).toBe('edge');
  });

  it('that are read-only turn writes of the guest into MMIO', async () => {
    const list: Operation[] = [
      { op: 'store', size: 4, address: AT, value: 0x55n },
      { op: 'load', size: 4, address: AT },
    ];
    const vm = await createPorts(list);
    await vm.memory.addSlot({ slot: 3, gpa: AT, size: 4096, readOnly: true });
    vm.memory.write(AT, Buffer.from([9, 0, 0, 0]));
    expect((await runList(vm, list))[1]).toBe(9n);
    expect(vm.memory.slots()[1]).toMatchObject({ readOnly: true });
  });

  it('are part of a snapshot’s machine description', async () => {
    const vm = await createVm({ memory: 8192, irqchip: false });
    await vm.memory.addSlot({ slot: 2, gpa: 0x10000n, size: 4096 });
    expect(vm.describe().memory.regions).toEqual([
      { slot: 0, gpa: 0, size: 8192 },
      { slot: 2, gpa: 0x10000, size: 4096 },
    ]);
  });
});

describe('a slot is refused', () => {
  it.each<[string, { slot: number; gpa: bigint; size: number }]>([
    ['with a number that is in use', { slot: 0, gpa: AT, size: 4096 }],
    ['over another', { slot: 3, gpa: 4096n, size: 4096 }],
    ['that ends in another', { slot: 3, gpa: 0n, size: 8192 }],
    ['of half a page', { slot: 3, gpa: AT, size: 2048 }],
    ['at half a page', { slot: 3, gpa: AT + 2048n, size: 4096 }],
    ['of no bytes', { slot: 3, gpa: AT, size: 0 }],
    ['beyond 2^52', { slot: 3, gpa: 1n << 52n, size: 4096 }],
    ['that wraps', { slot: 3, gpa: 0xffff_ffff_ffff_f000n, size: 8192 }],
    ['with a negative number', { slot: -1, gpa: AT, size: 4096 }],
  ])('%s, and the machine is as before', async (_what, slot) => {
    const vm = await createVm({ memory: MiB(1), irqchip: false });
    const before = vm.memory.slots();
    await expect(vm.memory.addSlot(slot)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(vm.memory.slots()).toEqual(before);
  });

  it('with a number that KVM does not have: the range is free then', async () => {
    const vm = await createVm({ memory: MiB(1), irqchip: false });
    await expect(
      vm.memory.addSlot({ slot: 0x7fffffff, gpa: AT, size: 4096 }),
    ).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await vm.memory.addSlot({ slot: 1, gpa: AT, size: 4096 });
  });

  it('when it is to be removed, or to log, and is not there', async () => {
    const vm = await createVm({ memory: MiB(1), irqchip: false });
    const missing = { code: 'ERR_INVALID_ARGUMENT', message: 'there is no memory slot 9' };
    await expect(vm.memory.removeSlot(9)).rejects.toMatchObject(missing);
    await expect(vm.memory.setSlotFlags(9, { logDirtyPages: true })).rejects.toMatchObject(missing);
    await expect(vm.memory.getDirtyLog(9)).rejects.toMatchObject(missing);
  });
});
