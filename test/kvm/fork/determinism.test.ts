/** After a reset the same input gives the same exits, registers, devices and memory. */
import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import type { VcpuExit, Vm } from '../../../lib/index.js';
import type { RawMachineState } from '../../../lib/native/binding.js';
import { GUEST_ABI as ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { hangLimit, SLOWDOWN } from '../support/host.js';
import { createPorts, type Operation, untilPass } from '../support/ports.js';
import { differences } from '../support/state.js';

/** `KVMSNAP_DETERMINISM=10000` is what a release is tested with. */
const ROUNDS = Number(process.env.KVMSNAP_DETERMINISM ?? 100 / SLOWDOWN);
const RAM = MiB(4);
/** Nobody answers there but this test. */
const PORT = 0x700;
const MMIO = 0xd000_0000n;
const HERE = ABI.PAGES;

const LIST: Operation[] = [
  { op: 'in', size: 1, port: PORT },
  { op: 'in', size: 2, port: PORT + 2 },
  { op: 'in', size: 4, port: PORT + 4 },
  { op: 'out', size: 4, port: PORT, value: 0x12345678 },
  { op: 'ins', size: 4, port: PORT, count: 300, address: HERE },
  { op: 'outs', size: 2, port: PORT, count: 100, address: HERE + 100n },
  { op: 'ins', size: 1, port: PORT, count: 5000, address: HERE + 0xffffn },
  { op: 'load', size: 8, address: MMIO + 8n },
  { op: 'store', size: 4, address: MMIO + 0x10n, value: 0xdeadbeefn },
  // Devices: the scratch register, what was typed, CMOS RAM, the keyboard controller.
  { op: 'out', size: 1, port: 0x3ff, value: 0x5a },
  { op: 'in', size: 1, port: 0x3ff },
  { op: 'in', size: 1, port: 0x3fd },
  { op: 'in', size: 1, port: 0x3f8 },
  { op: 'in', size: 1, port: 0x3f8 },
  { op: 'out', size: 1, port: 0x70, value: 0x44 },
  { op: 'out', size: 1, port: 0x71, value: 0x99 },
  { op: 'in', size: 1, port: 0x71 },
  { op: 'out', size: 1, port: 0x64, value: 0xd2 },
  { op: 'out', size: 1, port: 0x60, value: 0x77 },
  { op: 'in', size: 1, port: 0x60 },
  { op: 'in', size: 2, port: PORT },
];

interface Life {
  exits: string;
  state: RawMachineState;
  memory: string;
}

const plain = (_: string, value: unknown) => (typeof value === 'bigint' ? `${value}` : value);

const isLast = (exit: VcpuExit) => exit.kind === 'io' && exit.port === ABI.PORT_PASS;
const asks = (exit: VcpuExit) =>
  (exit.kind === 'io' && exit.direction === 'in') || (exit.kind === 'mmio' && !exit.write);

/** The same input in each life: what is typed, and what every read gets. */
async function live(vm: Vm): Promise<Life> {
  const exits: unknown[] = [];
  vm.console.write(Buffer.from('typed'));
  for (let random = 1; ; ) {
    const exit = await vm.vcpus[0]!.run({ dispatch: true });
    exits.push(exit);
    if (isLast(exit)) break;
    if (!asks(exit)) continue;
    const { length } = (exit as { data: Uint8Array }).data;
    const answer = Uint8Array.from({ length }, () => {
      random = (Math.imul(random, 1103515245) + 12345) >>> 0;
      return random >>> 16;
    });
    vm.vcpus[0]!.answer(answer);
  }
  return {
    exits: JSON.stringify(exits, plain),
    state: await vm.saveState(),
    memory: createHash('sha256').update(vm.memory.read(0n, RAM)).digest('hex'),
  };
}

describe.each([{ irqchip: false }, { irqchip: true }])(
  'a machine, irqchip: $irqchip',
  (options) => {
    it(
      `lives the same life ${ROUNDS} times, however the one before has ended`,
      async () => {
        const vm = await createPorts(LIST, { ...options, memory: RAM });
        // Once, so that the page tables say what the guest has touched.
        await live(vm);
        using clean = await vm.snapshot();
        vm.memory.write(ABI.DATA + BigInt(ABI.COMMAND), Uint8Array.of(ABI.COMMAND_GO));
        using snapshot = await vm.snapshot();
        await vm.reset(snapshot);
        const first = await live(vm);
        expect(JSON.parse(first.exits).length).toBeGreaterThan(15);
        let poisoned = 0;
        for (let round = 0; round < ROUNDS; round++) {
          await vm.reset(snapshot);
          const { exits, state, memory } = await live(vm);
          expect(exits).toBe(first.exits);
          expect(differences(first.state, state)).toEqual([]);
          expect(memory).toBe(first.memory);
          if (round % 4 === 0) continue;
          // A life of another kind: left in the middle of an exit, at its end, or killed as it runs.
          await vm.reset(round % 8 < 4 ? snapshot : clean);
          if (round % 4 === 1) {
            for (let i = 0; i < (round % 8 < 4 ? 1 + (round % 20) : 0); i++) {
              await vm.vcpus[0]!.run({ dispatch: true });
            }
            continue;
          }
          await vm.resume();
          if (round % 8 === 2) await untilPass(vm, 2n);
          if (round % 4 === 3) {
            await vm.kill();
            expect(vm.status).toBe('poisoned');
            poisoned++;
          }
        }
        expect(poisoned).toBeGreaterThanOrEqual(Math.floor(ROUNDS / 4));
      },
      hangLimit(ROUNDS, 400),
    );
  },
);
