import { describe, expect, it } from 'vitest';
import { VCPU_SECTIONS } from '../../../lib/cpu/sections.js';
import type { Vm } from '../../../lib/index.js';
import { createCode, type Mode } from '../support/code.js';
import { createVm } from '../support/machines.js';

const MODES: { title: string; mode: Mode; ring: 0 | 3 }[] = [
  { title: 'real mode', mode: 'real', ring: 0 },
  { title: 'protected mode, ring 0', mode: 'protected', ring: 0 },
  { title: 'protected mode, ring 3', mode: 'protected', ring: 3 },
  { title: 'long mode, ring 0', mode: 'long', ring: 0 },
  { title: 'long mode, ring 3', mode: 'long', ring: 3 },
];
const GETTABLE = Object.keys(VCPU_SECTIONS).filter(
  (name) => name !== 'cpuid2' && name !== 'msrs',
) as Exclude<keyof typeof VCPU_SECTIONS, 'cpuid2' | 'msrs'>[];

const cpuOf = (vm: Vm) => vm.vcpus[0]!;
const nops = Array<number>(16).fill(0x90);

describe.each(MODES)('in $title', ({ mode, ring }) => {
  it.each(GETTABLE)('%s can be set to what it is', async (section) => {
    const cpu = cpuOf(await createCode(nops, { mode, ring, irqchip: true }));
    const value = await cpu.get(section);
    await cpu.set(section, value as never);
    expect(await cpu.get(section)).toEqual(value);
  });

  it('general registers hold what was set, and the rest stays', async () => {
    const cpu = cpuOf(await createCode(nops, { mode, ring }));
    const before = await cpu.getRegs();
    // What fits in the mode's registers.
    const mask = mode === 'long' ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
    const patch = {
      rax: 0x1122_3344_5566_7788n & mask,
      rbx: mask,
      rcx: 1n,
      rsi: 0x8000_0000n,
      rdi: 0xdead_beefn,
      rbp: 0x1234n,
      rflags: 0x8d7n,
    };
    await cpu.setRegs(patch);
    expect(await cpu.getRegs()).toEqual({ ...before, ...patch });
  });

  it('instructions see the registers, and leave theirs', async () => {
    // inc cx or ecx or (long mode has no short form) inc ecx.
    const inc = mode === 'long' ? [0xff, 0xc1] : [0x41];
    const cpu = cpuOf(await createCode([...inc, ...nops], { mode, ring }));
    await cpu.setRegs({ rcx: 41n });
    const { rip } = await cpu.getRegs();
    if (ring === 0) {
      await cpu.step();
      expect(await cpu.getRegs()).toMatchObject({ rcx: 42n, rip: rip + BigInt(inc.length) });
    } else {
      await cpu.setRegs({ rcx: 41n });
      expect((await cpu.getRegs()).rcx).toBe(41n);
    }
  });

  it('segment and control registers are those of the mode', async () => {
    const sregs = await cpuOf(await createCode(nops, { mode, ring })).getSregs();
    expect(sregs.cr0 & 1n).toBe(mode === 'real' ? 0n : 1n);
    expect((sregs.efer >> 10n) & 1n).toBe(mode === 'long' ? 1n : 0n);
    expect(sregs.cs.selector & 3).toBe(ring);
    expect(sregs.cs.l).toBe(mode === 'long' ? 1 : 0);
  });

  it('sregs takes a segment base and CR2', async () => {
    const cpu = cpuOf(await createCode(nops, { mode, ring }));
    await cpu.setSregs({ fs: { base: 0x12340n }, cr2: 0x5000n });
    const sregs = await cpu.getSregs();
    expect(sregs.fs.base).toBe(0x12340n);
    expect(sregs.cr2).toBe(0x5000n);
  });

  it('debug registers', async () => {
    const cpu = cpuOf(await createCode(nops, { mode, ring }));
    await cpu.setDebugRegs({ db: [0x1000n, 0x2000n, 0x3000n, 0x4000n] });
    expect((await cpu.getDebugRegs()).db).toEqual([0x1000n, 0x2000n, 0x3000n, 0x4000n]);
  });

  it('x87, SSE and AVX registers', async () => {
    const cpu = cpuOf(await createCode(nops, { mode, ring }));
    const before = await cpu.getXsave();
    const xmm = before.legacy.xmm.map((_, i) => new Uint8Array(16).fill(i + 1));
    const st = before.legacy.st.map((_, i) => new Uint8Array(10).fill(0x30 + i));
    await cpu.setXsave({ legacy: { xmm, st, fcw: 0x37e, mxcsr: 0x1fa0 } });
    const after = await cpu.getXsave();
    expect(after.legacy).toMatchObject({ fcw: 0x37e, mxcsr: 0x1fa0 });
    expect(after.legacy.xmm).toEqual(xmm);
    expect(after.legacy.st).toEqual(st);
  });
});

describe('on a machine with irqchip', () => {
  it('LAPIC registers', async () => {
    const cpu = cpuOf(await createCode(nops, { irqchip: true }));
    await cpu.setLapic({ svr: 0x1ff, tpr: 0x20, lvt_error: 0x10055 });
    expect(await cpu.getLapic()).toMatchObject({ svr: 0x1ff, tpr: 0x20, lvt_error: 0x10055 });
  });

  it('pending events', async () => {
    const cpu = cpuOf(await createCode(nops, { irqchip: true }));
    // Bit 0 of flags: nmi.pending is valid.
    await cpu.setEvents({ flags: 1, nmi: { pending: 1 } });
    expect((await cpu.getEvents()).nmi.pending).toBe(1);
  });

  it('mp_state: others than the first wait to be started', async () => {
    const vm = await createCode(nops, { irqchip: true, vcpus: 2 });
    expect((await vm.vcpus[0]!.getMpState()).mp_state).toBe(0);
    expect((await vm.vcpus[1]!.getMpState()).mp_state).toBe(1);
    await vm.vcpus[0]!.setMpState({ mp_state: 3 });
    expect((await vm.vcpus[0]!.getMpState()).mp_state).toBe(3);
  });
});

describe('what cannot be', () => {
  it('a LAPIC without an irqchip', async () => {
    const cpu = cpuOf(await createCode(nops));
    await expect(cpu.getLapic()).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(/irqchip/),
    });
    await expect(cpu.setLapic({ tpr: 0 })).rejects.toMatchObject({ code: 'ERR_STATE' });
  });

  it('a field that is not there, or a value that does not fit', async () => {
    const cpu = cpuOf(await createCode(nops));
    await expect(cpu.setRegs({ eax: 1n } as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(/kvm_regs has no field eax/),
    });
    await expect(cpu.setRegs({ rax: 1n << 64n })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
  });

  it('control registers that no CPU can have: KVM refuses, and says which ioctl', async () => {
    const cpu = cpuOf(await createCode(nops));
    // CR0.PG without CR0.PE.
    await expect(cpu.setSregs({ cr0: 0x8000_0000n })).rejects.toMatchObject({
      code: 'ERR_IOCTL',
      syscall: 'KVM_SET_SREGS2',
      errno: 22,
    });
  });
});

describe('XCR0', () => {
  it('is what KVM says, and can be set', async () => {
    const cpu = cpuOf(await createCode(nops));
    const { nr_xcrs, xcrs } = await cpu.getXcrs();
    if (nr_xcrs === 0) return expect(xcrs[0]).toMatchObject({ value: 0n });
    await cpu.setXcrs({ xcrs: [{ ...xcrs[0]!, value: 1n }, ...xcrs.slice(1)] });
    expect((await cpu.getXcrs()).xcrs[0]).toMatchObject({ xcr: 0, value: 1n });
  });
});

describe('CPUID', () => {
  it("has KVM's signature, and each vCPU's own APIC id", async () => {
    const vm = await createVm({ memory: 4096, vcpus: 3 });
    for (const vcpu of vm.vcpus) {
      const leaves = await vcpu.getCpuid();
      const signature = leaves.find((leaf) => leaf.function === 0x40000000)!;
      const text = Buffer.alloc(12);
      text.writeUInt32LE(signature.ebx, 0);
      text.writeUInt32LE(signature.ecx, 4);
      text.writeUInt32LE(signature.edx, 8);
      expect(text.toString()).toBe('KVMKVMKVM\0\0\0');
      const features = leaves.find((leaf) => leaf.function === 1)!;
      expect(features.ebx >>> 24).toBe(vcpu.index);
      // The hypervisor bit.
      expect(features.ecx >>> 31).toBe(1);
    }
  });

  it('is what the guest sees', async () => {
    // mov eax, 0x40000000; cpuid
    const vm = await createCode([0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, ...nops]);
    const cpu = cpuOf(vm);
    await cpu.step();
    await cpu.step();
    const leaf = (await cpu.getCpuid()).find((entry) => entry.function === 0x40000000)!;
    const { rbx, rcx, rdx } = await cpu.getRegs();
    expect([rbx, rcx, rdx]).toEqual([BigInt(leaf.ebx), BigInt(leaf.ecx), BigInt(leaf.edx)]);
  });
});

describe('a machine with several vCPUs', () => {
  it('keeps their registers apart', async () => {
    const vm = await createVm({ memory: 4096, vcpus: 4 });
    for (const vcpu of vm.vcpus) await vcpu.setRegs({ rax: BigInt(vcpu.index + 100) });
    const values = await Promise.all(vm.vcpus.map(async (vcpu) => (await vcpu.getRegs()).rax));
    expect(values).toEqual([100n, 101n, 102n, 103n]);
  });
});
