import { describe, expect, it } from 'vitest';
import { type GenerationIdPlace, Pool, Snapshot, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { bootGuest, createGuest, createVm, tracked, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

/** Memory that the counter never touches. */
const generationId: GenerationIdPlace = { gpa: 0x8000n };

const text = (vm: Vm): string => Buffer.from(vm.generationId!).toString('hex');
const different = (...vms: Vm[]): number => new Set(vms.map(text)).size;

describe('the VM generation ID of a bare guest', () => {
  it('is where it was asked for, random, and in no two machines the same', async () => {
    const [a, b] = [
      await createGuest('counter', { generationId }),
      await createGuest('counter', { generationId }),
    ];
    expect(different(a!, b!)).toBe(2);
    expect(a!.memory.read(generationId.gpa, 16)).toEqual(a!.generationId);
    expect(a!.describe().generationId).toEqual({ gpa: 0x8000 });
    expect((await createGuest('counter')).generationId).toBeUndefined();
  });

  it('is new in every fork of a running machine, and stays in the machine itself', async () => {
    const vm = await bootGuest('counter', { generationId });
    const before = text(vm);
    const forks = (await vm.fork(3)).map(tracked);
    expect(different(vm, ...forks)).toBe(4);
    expect(text(vm)).toBe(before);
    // It is the clone's own: a clone of it has another, and its guest runs on.
    const [grandchild] = (await forks[0]!.fork()).map(tracked) as [Vm];
    expect(different(forks[0]!, grandchild)).toBe(2);
    await grandchild.resume();
    await untilCounted(grandchild);
  });

  it('is the same in all forks that are told to keep it', async () => {
    const vm = await bootGuest('counter', { generationId });
    const twins = await vm.fork({ count: 2, identity: { generation: 'keep' } });
    expect(different(vm, ...twins.map(tracked))).toBe(1);
  });

  it('is new in restores from a store, by another object, and kept where wanted', async () => {
    const store = scratch();
    const vm = await bootGuest('counter', { generationId });
    (await vm.snapshot({ store, tag: 'it' })).close();
    using snapshot = await Snapshot.open(store, 'it');
    expect((await snapshot.config()).machine.generationId).toEqual({ gpa: 0x8000 });
    const [a, b] = [tracked(await snapshot.restore()), tracked(await snapshot.restore())];
    expect(different(vm, a, b)).toBe(3);
    const twin = tracked(await snapshot.restore({ identity: { generation: 'keep' } }));
    expect(different(vm, twin)).toBe(1);
  });

  it('goes back with a reset, unless it shall be new', async () => {
    const vm = await bootGuest('counter', { generationId });
    using instant = await vm.snapshot();
    const [fork] = (await instant.fork()).map(tracked) as [Vm];
    const own = text(fork);
    await fork.reset();
    expect(different(vm, fork)).toBe(1);
    await fork.reset(instant, { identity: { generation: 'new' } });
    expect(different(vm, fork)).toBe(2);
    expect(text(fork)).not.toBe(own);
    await fork.resume();
    await untilCounted(fork);
  });

  it("is new for each taker of a pool's machine, also when the machine was used before", async () => {
    const vm = await bootGuest('counter', { generationId });
    using instant = await vm.snapshot();
    await using pool = await Pool.create(instant, { size: 1, max: 1 });
    const seen = new Set([text(vm)]);
    for (let round = 0; round < 5; round++) {
      const taken = await pool.get();
      seen.add(text(taken));
      await taken.resume();
      await untilCounted(taken);
      await taken.close();
    }
    expect(pool.stats.made).toBe(1);
    expect(seen.size).toBe(6);
    await using twin = await pool.get({ identity: { generation: 'keep' } });
    expect(different(vm, twin)).toBe(1);
  });

  it('is told of by an edge at the input that it names', async () => {
    const place = { gpa: 0x8000n, gsi: 20 };
    const vm = await bootGuest('counter', { irqchip: true, generationId: place });
    await vm.pause();
    // IOAPIC pin 20, unmasked: fixed, edge, vector 0x55, to APIC 0. kvm_ioapic_state: redirtbl at 24.
    const state = await vm.saveState();
    const ioapic = Buffer.from(state.vm.ioapic!);
    ioapic.writeBigUInt64LE(0x55n, 8 + 24 + 20 * 8);
    // The LAPIC on, by its spurious vector register: else it takes nothing.
    const lapic = Buffer.from(state.vcpus[0]!.lapic!);
    lapic.writeUInt32LE(0x1ff, 0xf0);
    await vm.loadState({
      ...state,
      vm: { ...state.vm, ioapic },
      vcpus: [{ ...state.vcpus[0]!, lapic }],
    });
    using instant = await vm.snapshot();
    const pending = async (of: Vm): Promise<boolean> => {
      const irr = Buffer.from((await of.saveState()).vcpus[0]!.lapic!);
      return (irr.readUInt32LE(0x200 + (0x55 >> 5) * 0x10) & (1 << (0x55 & 31))) !== 0;
    };
    expect(await pending(tracked(await instant.restore()))).toBe(true);
    expect(
      await pending(tracked(await instant.restore({ identity: { generation: 'keep' } }))),
    ).toBe(false);
  });
});

describe('what makes no generation ID', () => {
  const refused = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });

  it.each<[string, boolean | GenerationIdPlace, boolean]>([
    ['no place', true, true],
    ['an odd address', { gpa: 0x8004n }, true],
    ['an address without RAM', { gpa: 0x4000_0000n }, true],
    ['an address in the image', { gpa: GUEST_ABI.TEXT }, true],
    ['an input that there is not', { gpa: 0x8000n, gsi: 24 }, true],
    ['an input without an irqchip', { gpa: 0x8000n, gsi: 20 }, false],
  ])('%s', async (_, wrong, irqchip) => {
    await expect(createGuest('counter', { generationId: wrong, irqchip })).rejects.toEqual(refused);
  });

  it('a new one for machines that have none, or a policy that is none', async () => {
    const plain = await bootGuest('counter');
    await expect(plain.fork({ identity: { generation: 'new' } })).rejects.toEqual(refused);
    await expect(plain.fork({ identity: { clock: 'wall' as 'host' } })).rejects.toEqual(refused);
    expect(plain.status).toBe('running');
    await plain.close();
  });

  it('a reset to an instant of a machine that has it elsewhere', async () => {
    const vm = await createVm({ memory: 1 << 20, irqchip: false, generationId });
    const other = await createVm({ memory: 1 << 20, irqchip: false });
    using instant = await other.snapshot();
    await expect(vm.reset(instant)).rejects.toMatchObject({ code: 'ERR_STATE' });
  });
});
