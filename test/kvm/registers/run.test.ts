import { describe, expect, it } from 'vitest';
import type { Vcpu, VcpuExit } from '../../../lib/index.js';
import {
  CODE_AT,
  createCode,
  IN_AL_DX,
  IN_EAX_DX,
  movEax,
  movEdx,
  OUT_DX_AL,
  OUT_DX_EAX,
  outByte,
  SPIN,
  u32,
} from '../support/code.js';
import { createGuest, stopOf, until } from '../support/machines.js';

const RINGS = [0, 3] as const;

const ioOf = (exit: VcpuExit) => {
  if (exit.kind !== 'io') throw new Error(`an exit of kind ${exit.kind}`);
  return { ...exit, data: [...exit.data] };
};
const ripOf = async (cpu: Vcpu) => (await cpu.getRegs()).rip;

describe('single step in ring 0', () => {
  it('goes one known instruction at a time', async () => {
    // Lengths of instructions, in long mode.
    const code = [
      [0x90], // nop
      [0x48, 0xff, 0xc0], // inc rax
      [0xbb, ...u32(0x1234)], // mov ebx, 0x1234
      [0x48, 0xb9, ...u32(0x55667788), ...u32(0x11223344)], // mov rcx, 0x1122334455667788
      [0x31, 0xd2], // xor edx, edx
      [0x83, 0xc2, 0x05], // add edx, 5
      [0x66, 0x90], // xchg ax, ax
    ];
    const vm = await createCode([...code.flat(), ...SPIN]);
    const cpu = vm.vcpus[0]!;
    await cpu.setRegs({ rax: 41n });
    let rip = CODE_AT;
    for (const instruction of code) {
      expect(await ripOf(cpu)).toBe(rip);
      const exit = await cpu.step();
      rip += BigInt(instruction.length);
      // Vector 1, #DB.
      expect(exit).toMatchObject({ kind: 'debug', exception: 1, pc: rip });
      expect(vm.status).toBe('paused');
    }
    expect(await cpu.getRegs()).toMatchObject({
      rax: 42n,
      rbx: 0x1234n,
      rcx: 0x1122334455667788n,
      rdx: 5n,
      rip,
    });
    // jmp . stays where it is.
    await cpu.step();
    expect(await ripOf(cpu)).toBe(rip);
  });

  it('follows jumps, in each mode', async () => {
    // jmp +2 over two hlt; then nop.
    const code = [0xeb, 0x02, 0xf4, 0xf4, 0x90, 0x90];
    for (const mode of ['real', 'protected', 'long'] as const) {
      const cpu = (await createCode(code, { mode })).vcpus[0]!;
      const start = await ripOf(cpu);
      await cpu.step();
      expect(await ripOf(cpu)).toBe(start + 4n);
      await cpu.step();
      expect(await ripOf(cpu)).toBe(start + 5n);
    }
  });

  it('leaves no trace: the guest runs on at full speed', async () => {
    const vm = await createCode([...Array(8).fill(0x90), ...outByte(0xf4, 5)]);
    await vm.vcpus[0]!.step();
    expect((await vm.vcpus[0]!.getRegs()).rflags & 0x100n).toBe(0n);
    await vm.resume();
    expect(await vm.wait()).toEqual({ reason: 'exit-port', code: 5 });
  });
});

describe.each(RINGS)('run until the next exit, ring %i', (ring) => {
  it('gives port writes, raw', async () => {
    const vm = await createCode(
      [...outByte(0xe9, 0x41), ...movEdx(0x80), ...movEax(0xcafebabe), OUT_DX_EAX, ...SPIN],
      { ring },
    );
    const cpu = vm.vcpus[0]!;
    expect(ioOf(await cpu.run())).toMatchObject({
      direction: 'out',
      port: 0xe9,
      size: 1,
      count: 1,
      data: [0x41],
    });
    expect(ioOf(await cpu.run())).toMatchObject({
      port: 0x80,
      size: 4,
      data: [0xbe, 0xba, 0xfe, 0xca],
    });
    expect(vm.status).toBe('paused');
  });

  it('takes an answer for a port read', async () => {
    const vm = await createCode(
      [...movEdx(0x1234), IN_EAX_DX, ...movEdx(0x1235), OUT_DX_EAX, ...SPIN],
      { ring },
    );
    const cpu = vm.vcpus[0]!;
    expect(ioOf(await cpu.run())).toMatchObject({ direction: 'in', port: 0x1234, size: 4 });
    cpu.answer(Uint8Array.of(1, 2, 3, 4));
    expect(ioOf(await cpu.run())).toMatchObject({ port: 0x1235, data: [1, 2, 3, 4] });
  });

  it('reads ones where no answer was given', async () => {
    const vm = await createCode([...movEdx(0x1234), IN_AL_DX, OUT_DX_AL, ...SPIN], { ring });
    const cpu = vm.vcpus[0]!;
    await cpu.run();
    expect(ioOf(await cpu.run())).toMatchObject({ direction: 'out', data: [0xff] });
  });

  it('settles an unanswered read when registers are asked for', async () => {
    const vm = await createCode([...movEax(0), ...movEdx(0x1234), IN_AL_DX, ...SPIN], { ring });
    const cpu = vm.vcpus[0]!;
    await cpu.run();
    expect(await cpu.getRegs()).toMatchObject({ rax: 0xffn, rip: CODE_AT + 11n });
    // Too late.
    expect(() => cpu.answer(Uint8Array.of(1))).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it('refuses an answer of the wrong length, and takes the right one then', async () => {
    const vm = await createCode([...movEdx(0x1234), IN_AL_DX, OUT_DX_AL, ...SPIN], { ring });
    const cpu = vm.vcpus[0]!;
    await cpu.run();
    expect(() => cpu.answer(Uint8Array.of(1, 2))).toThrow(/waits for 1 bytes, not 2/);
    cpu.answer(Uint8Array.of(7));
    expect(ioOf(await cpu.run())).toMatchObject({ data: [7] });
  });

  it('with dispatch, devices and claims answer theirs first', async () => {
    const vm = await createCode(
      [
        ...outByte(0xe9, 0x21),
        ...movEdx(0x500),
        IN_AL_DX,
        ...movEdx(0x501),
        OUT_DX_AL,
        ...movEdx(0x777),
        IN_AL_DX,
        ...SPIN,
      ],
      { ring },
    );
    const written: number[] = [];
    vm.claimPorts({ base: 0x500, read: () => 0x5a });
    vm.claimPorts({
      base: 0x501,
      write: (_port, _size, value) => {
        written.push(value);
      },
    });
    let debug = '';
    vm.debug.on('data', (bytes) => {
      debug += bytes;
    });
    const exit = ioOf(await vm.vcpus[0]!.run({ dispatch: true }));
    expect(exit).toMatchObject({ direction: 'in', port: 0x777 });
    expect(written).toEqual([0x5a]);
    await until('the debug port gives its byte', () => debug === '!');
  });

  it('gives string output, all items in order', async () => {
    // mov esi, CODE_AT; mov ecx, 5; rep outsb
    const code = [
      ...movEdx(0x1234),
      ...[0xbe, ...u32(Number(CODE_AT)), 0xb9, ...u32(5), 0xf3, 0x6e],
      ...outByte(0x99, 1),
    ];
    const cpu = (await createCode(code, { ring })).vcpus[0]!;
    const items: number[] = [];
    for (;;) {
      const exit = ioOf(await cpu.run());
      if (exit.port === 0x99) break;
      expect(exit).toMatchObject({ port: 0x1234, size: 1, direction: 'out' });
      expect(exit.data).toHaveLength(exit.count);
      items.push(...exit.data);
    }
    expect(items).toEqual(code.slice(0, 5));
    expect((await cpu.getRegs()).rcx).toBe(0n);
  });

  it('takes string input, all items in order', async () => {
    const at = 0x20000;
    // mov edi, at; mov ecx, 6; rep insw
    const cpu = (
      await createCode(
        [
          ...movEdx(0x1234),
          ...[0xbf, ...u32(at), 0xb9, ...u32(6), 0x66, 0xf3, 0x6d],
          ...outByte(0x99, 1),
        ],
        { ring },
      )
    ).vcpus[0]!;
    let next = 0;
    for (;;) {
      const exit = ioOf(await cpu.run());
      if (exit.port === 0x99) break;
      expect(exit).toMatchObject({ port: 0x1234, size: 2, direction: 'in' });
      const answer = Buffer.alloc(2 * exit.count);
      for (let i = 0; i < exit.count; i++) answer.writeUInt16LE(0x1100 + next++, 2 * i);
      cpu.answer(answer);
    }
    expect(next).toBeGreaterThanOrEqual(6);
    expect((await cpu.getRegs()).rdi).toBe(BigInt(at + 12));
  });

  it('gives MMIO, and takes its answer', async () => {
    // mov ebx, 0xd0000000; mov eax, [rbx]; mov [rbx + 8], eax
    const cpu = (
      await createCode([0xbb, ...u32(0xd0000000), 0x8b, 0x03, 0x89, 0x43, 0x08, ...SPIN], { ring })
    ).vcpus[0]!;
    expect(await cpu.run()).toMatchObject({
      kind: 'mmio',
      write: false,
      gpa: 0xd0000000n,
      size: 4,
    });
    cpu.answer(Uint8Array.of(9, 8, 7, 6));
    const write = await cpu.run();
    expect(write).toMatchObject({ kind: 'mmio', write: true, gpa: 0xd0000008n, size: 4 });
    expect([...(write as { data: Uint8Array }).data]).toEqual([9, 8, 7, 6]);
  });

  it('ends with the machine where the guest ends it', async () => {
    const vm = await createCode(outByte(0xf4, 3), { ring });
    // Raw: the exit port is only a port.
    expect(ioOf(await vm.vcpus[0]!.run())).toMatchObject({ port: 0xf4, data: [3] });
    expect(vm.status).toBe('paused');
  });
});

describe('run', () => {
  it('with dispatch, gives the access that stopped the machine', async () => {
    const vm = await createCode(outByte(0xf4, 3));
    const exit = await vm.vcpus[0]!.run({ dispatch: true });
    expect(ioOf(exit)).toMatchObject({ direction: 'out', port: 0xf4, data: [3] });
    expect(vm.status).toBe('stopped');
    expect(await stopOf(vm)).toEqual({ reason: 'exit-port', code: 3 });
  });

  it('gives hlt where no irqchip handles it', async () => {
    const vm = await createCode([0xf4]);
    expect(await vm.vcpus[0]!.run()).toEqual({ kind: 'hlt' });
    expect(vm.status).toBe('paused');
  });

  it.each([
    [false, 'paused'],
    [true, 'stopped'],
  ])('gives a triple fault (dispatch: %s): then the machine is %s', async (dispatch, status) => {
    const vm = await createCode([0x0f, 0x01, 0x1d, 2, 0, 0, 0, 0x0f, 0x0b, ...Array(10).fill(0)]);
    expect(await vm.vcpus[0]!.run({ dispatch })).toEqual({ kind: 'shutdown' });
    expect(vm.status).toBe(status);
  });

  it('with dispatch, fails with what the handler threw', async () => {
    const vm = await createCode([...outByte(0x500, 3), ...SPIN]);
    vm.claimPorts({
      base: 0x500,
      write: () => {
        throw new Error('no such register');
      },
    });
    await expect(vm.vcpus[0]!.run({ dispatch: true })).rejects.toMatchObject({
      code: 'ERR_HANDLER',
      message: expect.stringMatching(/no such register/),
    });
    expect(vm.status).toBe('poisoned');
  });

  it('of one vCPU leaves the others where they are', async () => {
    const vm = await createCode([...outByte(0x80, 1), ...SPIN], { vcpus: 2 });
    const other = await vm.vcpus[1]!.getRegs();
    await vm.vcpus[0]!.run();
    expect(await vm.vcpus[1]!.getRegs()).toEqual(other);
  });

  it('is refused while another runs, and of a vCPU that is not there', async () => {
    const vm = await createGuest('hostile', { vcpus: 2 });
    const running = vm.vcpus[0]!.run({ dispatch: true });
    await expect(vm.vcpus[1]!.run()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await vm.pause();
    expect((await running).kind).toBe('interrupted');
  });
});
