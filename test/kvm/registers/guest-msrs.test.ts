/** Every MSR that a guest can write is state: found by a guest that tries them all. */
import { describe, expect, it } from 'vitest';
import { decodeMsrs, encodeMsrs, MSR, msrName } from '../../../lib/cpu/msrs.js';
import { Pool, SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { SLOWDOWN } from '../support/host.js';
import { bootGuest, createVm, setWord, tracked, until, word } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

/**
 * First and number. AMD's come first: with HWCR.McStatusWrEn, which the guest then sets, it may write
 * MCi_STATUS.
 */
const RANGES: readonly (readonly [number, number])[] = [
  [0xc0010000, 0x2000],
  [0x00000000, 0x2000],
  [0x40000000, 0x200],
  [0x4b564d00, 0x100],
  [0xc0000000, 0x2000],
];

/** MSRs that a guest can change and that are not what they were, and why. */
const EXCEPTIONS: readonly { name: RegExp; why: string }[] = [
  { name: /^IA32_TSC$/, why: 'a clock: it goes on' },
  { name: /^HV_(TIME_REF_COUNT|VP_RUNTIME)$/, why: 'clocks that KVM computes at each read' },
  {
    name: /^IA32_TSC_ADJUST$/,
    why: 'KVM moves it with a TSC that the host sets, on kernels that count it as the guest’s doing',
  },
  {
    name: /^IA32_SYSENTER_(ESP|EIP)$/,
    why: 'KVM on AMD keeps the low half of what is set: those CPUs have no SYSENTER in 64-bit mode',
  },
  {
    name: /^K7_HWCR$/,
    why: 'KVM before Linux 6.7 takes McStatusWrEn but not its end (kvm_set_msr_common): it stays set over a reset',
  },
  {
    name: /^HV_(SVERSION|SINT\d+)$/,
    why:
      'only the host can set them where CPUID has no Hyper-V; a copy starts with what KVM gives them. Open: ' +
      'a fork of a vCPU whose SINTs were set through the API has them as new',
  },
];

interface Written {
  name: string;
  index: number;
  before: bigint;
  now: bigint;
}

const ENTRY = 32;

function table(vm: Vm): Written[] {
  const count = Number(word(vm, GUEST_ABI.COUNT));
  const bytes = vm.memory.read(GUEST_ABI.PAGES, count * ENTRY);
  return Array.from({ length: count }, (_, i) => {
    const at = (field: number) => bytes.readBigUInt64LE(i * ENTRY + field * 8);
    const index = Number(at(0));
    return { name: msrName(index), index, before: at(1), now: at(3) };
  }).filter(({ name }) => !EXCEPTIONS.some((exception) => exception.name.test(name)));
}

async function command(vm: Vm, what: number): Promise<void> {
  setWord(vm, GUEST_ABI.COMMAND, what);
  await until(
    'the guest is through',
    () => word(vm, GUEST_ABI.COMMAND) === 0n || vm.status !== 'running',
    60_000 * SLOWDOWN,
  );
  expect(vm.status, `at MSR ${msrName(Number(word(vm, GUEST_ABI.CURSOR)))}`).toBe('running');
}

/** Has the guest write all MSRs of some ranges that it can. */
async function write(vm: Vm, ranges: readonly (readonly [number, number])[]): Promise<Written[]> {
  const list = Buffer.alloc((ranges.length + 1) * 16);
  ranges.forEach(([first, count], i) => {
    list.writeBigUInt64LE(BigInt(first), i * 16);
    list.writeBigUInt64LE(BigInt(count), i * 16 + 8);
  });
  vm.memory.write(GUEST_ABI.DATA + BigInt(GUEST_ABI.LINES), list);
  await command(vm, GUEST_ABI.COMMAND_GO);
  return table(vm);
}

/** What the guest reads in those MSRs now, by name. */
async function read(vm: Vm, written: readonly Written[]): Promise<Record<string, bigint>> {
  const entries = Buffer.alloc(written.length * ENTRY);
  written.forEach(({ index }, i) => {
    entries.writeBigUInt64LE(BigInt(index), i * ENTRY);
  });
  vm.memory.write(GUEST_ABI.PAGES, entries);
  setWord(vm, GUEST_ABI.COUNT, written.length);
  await vm.resume();
  await command(vm, GUEST_ABI.COMMAND_REFILL);
  await vm.pause();
  expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  return Object.fromEntries(table(vm).map(({ name, now }) => [name, now]));
}

/** What they were. Where one register has two names, the guest had changed it before it came to the second. */
const oldValues = (written: readonly Written[]): Record<string, bigint> => {
  const all = Object.fromEntries(written.map((one) => [one.name, one.before]));
  const under = (name: string) => all[name.replace(/_NEW$/, '')] ?? all[name]!;
  return Object.fromEntries(written.map(({ name }) => [name, under(name)]));
};

/** What any KVM lets a guest write. */
const ALWAYS = [
  'IA32_MTRR_PHYSBASE0',
  'IA32_MTRR_PHYSMASK7',
  'MTRR_FIX_64K_00000',
  'MTRR_FIX_4K_F8000',
  'IA32_MTRR_DEF_TYPE',
  'IA32_PAT',
  'IA32_MC0_CTL',
  'IA32_MC0_ADDR',
  'IA32_MC9_MISC',
  'IA32_MCG_STATUS',
  'KVM_STEAL_TIME',
  'KVM_SYSTEM_TIME_NEW',
  'LSTAR',
];

describe.each([{ irqchip: true }, { irqchip: false }])('with irqchip: $irqchip', ({ irqchip }) => {
  it(
    'what a guest wrote into MSRs is in fork and restore, and gone after a reset and in a pool',
    async () => {
      const vm = await bootGuest('msrs', { irqchip });
      using clean = await vm.snapshot({ then: 'resume' });
      const written = await write(vm, RANGES);
      expect(written.map(({ name }) => name)).toEqual(expect.arrayContaining(ALWAYS));
      await vm.pause();
      // Some are one register under two names, so that the last write counts.
      const newValues = await read(vm, written);

      const [fork] = await vm.fork(1);
      expect(await read(tracked(fork!), written)).toEqual(newValues);
      const store = await SnapshotStore.open(`${scratch()}/store`, {
        create: true,
        durable: false,
      });
      using saved = await vm.snapshot({ store });
      const restored = tracked(await saved.restore());
      expect(await read(restored, written)).toEqual(newValues);
      const state = await vm.saveState();

      await vm.reset(clean);
      expect(await read(vm, written)).toEqual(oldValues(written));
      await vm.loadState(state);
      expect(await read(vm, written)).toEqual(newValues);

      await using pool = await Pool.create(clean, { size: 1, max: 1 });
      const owner = await pool.get();
      await owner.resume();
      // HWCR comes first here, too: see RANGES.
      const mine = await write(owner, [
        [0xc0010015, 1],
        ...written.map(({ index }) => [index, 1] as const),
      ]);
      expect(mine.map(({ name }) => name)).toEqual(written.map(({ name }) => name));
      await owner.close();
      const next = await pool.get();
      expect(await read(next, written)).toEqual(oldValues(written));
      await next.close();
      expect(pool.stats.discarded).toBe(0);
    },
    120_000 * SLOWDOWN,
  );

  it('what was set through the API is in forks, and gone after a reset', async () => {
    const vm = await createVm({ memory: 4096, irqchip });
    const cpu = vm.vcpus[0]!;
    using clean = await vm.snapshot();
    // All of them first: some are one register under two names.
    const olds = new Map<number, bigint>();
    for (const index of new Set(Object.values(MSR))) {
      const name = msrName(index);
      if (EXCEPTIONS.some((exception) => exception.name.test(name))) continue;
      // How many banks there are: whoever sets it makes new ones.
      if (index === MSR.IA32_MCG_CAP) continue;
      const data = await readMsr(vm, index);
      if (data !== undefined) olds.set(index, data);
    }
    const indices = [...olds.keys()];
    const changed = new Set<number>();
    for (const [index, old] of olds) {
      for (let bit = 0n; bit < 64n && !changed.has(index); bit++) {
        const set = cpu.setMsrs([{ index, data: old ^ (1n << bit) }]);
        if (!(await set.then(() => true, refused))) continue;
        if ((await readMsr(vm, index)) !== old) changed.add(index);
      }
    }
    expect(changed).toContain(MSR.IA32_MTRR_DEF_TYPE);
    expect(changed.size).toBeGreaterThan(80);
    const values = async (machine: Vm) =>
      (await machine.vcpus[0]!.getMsrs(indices)).map(({ index, data }) => [msrName(index), data]);
    const news = await values(vm);
    const [fork] = await vm.fork(1);
    expect(await values(tracked(fork!))).toEqual(news);
    await vm.reset(clean);
    expect(await values(vm)).toEqual([...olds].map(([index, data]) => [msrName(index), data]));
  });
});

const refused = (error: { code?: string }): boolean => {
  expect(error.code).toBe('ERR_MSR');
  return false;
};

async function readMsr(vm: Vm, index: number): Promise<bigint | undefined> {
  try {
    return (await vm.vcpus[0]!.getMsrs([index]))[0]?.data;
  } catch (error) {
    refused(error as { code?: string });
    return undefined;
  }
}

it('a state of an older release, which lacks MSRs, has them as a new vCPU has', async () => {
  const vm = await bootGuest('msrs', { irqchip: true });
  await vm.pause();
  const state = await vm.saveState();
  await vm.resume();
  const written = await write(vm, [[0x200, 0x100]]);
  expect(written.length).toBeGreaterThan(20);
  await vm.pause();
  const few = decodeMsrs(state.vcpus[0]!.msrs).filter(({ index }) => index < 0x200);
  state.vcpus[0]!.msrs = encodeMsrs(few.filter(({ index }) => index !== MSR.IA32_MCG_CAP));
  await vm.loadState(state);
  expect(await read(vm, written)).toEqual(oldValues(written));
  // As many machine-check banks as KVM makes when it is not asked.
  expect(await readMsr(vm, MSR.IA32_MCG_CAP!)).toBe(32n);
  expect(await readMsr(vm, 0x400 + 4 * 31)).toBeDefined();
});
