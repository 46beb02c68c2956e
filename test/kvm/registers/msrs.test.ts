import { describe, expect, it } from 'vitest';
import { MSR, msrIndex } from '../../../lib/index.js';
import { createCode } from '../support/code.js';
import { createVm } from '../support/machines.js';

const newCpu = async () => (await createVm({ memory: 4096 })).vcpus[0]!;

describe('MSRs', () => {
  it('hold what was set, by index', async () => {
    const cpu = await newCpu();
    const entries = [
      { index: msrIndex('STAR'), data: 0x0010_0008_0000_0000n },
      { index: msrIndex('LSTAR'), data: 0xffff_8000_1234_5678n },
      { index: msrIndex('KERNEL_GS_BASE'), data: 0x1234_5000n },
      { index: msrIndex('IA32_PAT'), data: 0x0007_0406_0007_0406n },
    ];
    await cpu.setMsrs(entries);
    expect(await cpu.getMsrs(entries.map(({ index }) => index))).toEqual(entries);
  });

  it('without a list are all that a snapshot holds, each once, the TSC first', async () => {
    const all = await (await newCpu()).getMsrs();
    const indices = all.map(({ index }) => index);
    expect(new Set(indices).size).toBe(indices.length);
    expect(indices[0]).toBe(MSR.IA32_TSC);
    expect(indices).toEqual(expect.arrayContaining([msrIndex('LSTAR'), msrIndex('IA32_PAT')]));
  });

  it('are what the guest writes and reads', async () => {
    // mov ecx, 0xC0000082 (LSTAR); mov eax, 0x1000; xor edx, edx; wrmsr; rdmsr
    const vm = await createCode([
      ...[0xb9, 0x82, 0x00, 0x00, 0xc0, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x31, 0xd2, 0x0f, 0x30],
      ...[0x0f, 0x32, 0x90],
    ]);
    const cpu = vm.vcpus[0]!;
    for (let i = 0; i < 4; i++) await cpu.step();
    expect(await cpu.getMsrs([0xc0000082])).toEqual([{ index: 0xc0000082, data: 0x1000n }]);
    await cpu.setMsrs([{ index: 0xc0000082, data: 0x7777n }]);
    await cpu.step();
    expect((await cpu.getRegs()).rax).toBe(0x7777n);
  });

  it('that KVM does not have are named, on reading', async () => {
    const cpu = await newCpu();
    await expect(cpu.getMsrs([MSR.IA32_TSC as number, 0x12345])).rejects.toMatchObject({
      code: 'ERR_MSR',
      message: expect.stringMatching(/0x12345\b/),
    });
  });

  it('that KVM does not have are named, on setting, and those before them are put back', async () => {
    const cpu = await newCpu();
    const lstar = msrIndex('LSTAR');
    await cpu.setMsrs([{ index: lstar, data: 0x1111n }]);
    const refused = cpu.setMsrs([
      { index: lstar, data: 0x4242n },
      { index: 0x12345, data: 1n },
      { index: lstar, data: 0x5555n },
    ]);
    await expect(refused).rejects.toMatchObject({
      code: 'ERR_MSR',
      message: expect.stringMatching(/refused to set MSR 0x12345 to 0x1\b/),
    });
    expect(await cpu.getMsrs([lstar])).toEqual([{ index: lstar, data: 0x1111n }]);
  });

  it('that may not have a value are named with it', async () => {
    const cpu = await newCpu();
    // Not a canonical address.
    const refused = cpu.setMsrs([{ index: msrIndex('LSTAR'), data: 0x8000_0000_0000_0000n }]);
    await expect(refused).rejects.toMatchObject({
      code: 'ERR_MSR',
      message: expect.stringMatching(/0xc0000082.*0x8000000000000000/),
    });
  });
});
