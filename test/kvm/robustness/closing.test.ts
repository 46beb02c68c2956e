import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { KvmsnapError } from '../../../lib/errors.js';
import type { NativeMachine } from '../../../lib/native/binding.js';
import { HANG_MS } from '../support/host.js';
import { until } from '../support/machines.js';
import { ASK, Heard, rawMachine, SPIN, TALK } from './raw.js';

type Call = (machine: NativeMachine) => Promise<unknown>;

/** Every method that gives a promise, with the states it may be called in. */
const CALLS: { name: string; running: boolean; call: Call }[] = [
  { name: 'resume', running: true, call: (m) => m.resume() },
  { name: 'pause', running: true, call: (m) => m.pause() },
  { name: 'kill', running: true, call: (m) => m.kill() },
  { name: 'close', running: true, call: (m) => m.close() },
  { name: 'freeze, going on', running: true, call: (m) => m.freeze('resume') },
  { name: 'freeze, pausing', running: true, call: (m) => m.freeze('pause') },
  { name: 'getDirtyLog', running: true, call: (m) => m.getDirtyLog(0) },
  {
    name: 'clearDirtyLog',
    running: true,
    call: (m) => m.clearDirtyLog(0, 0, 64, new Uint8Array(8)),
  },
  { name: 'saveState', running: false, call: (m) => m.saveState() },
  {
    name: 'addSlot',
    running: false,
    call: (m) => m.addSlot({ slot: 5, gpa: 0x200000n, size: 4096, flags: 0 }),
  },
  { name: 'removeSlot', running: false, call: (m) => m.removeSlot(0) },
  { name: 'setSlotFlags', running: false, call: (m) => m.setSlotFlags(0, 0) },
  { name: 'getVcpu', running: false, call: (m) => m.getVcpu(0, 'regs') },
  { name: 'setVcpu', running: false, call: (m) => m.setVcpu(0, 'regs', new Uint8Array(144)) },
  { name: 'getMsrs', running: false, call: (m) => m.getMsrs(0, Uint32Array.of(0x10)) },
  {
    name: 'runVcpu',
    running: false,
    call: (m) => m.runVcpu(0, { dispatch: true, singleStep: false }),
  },
];
/** Those that give no promise. */
const DIRECT: Record<string, (machine: NativeMachine) => unknown> = {
  readMemory: (m) => m.readMemory(0n, 1),
  writeMemory: (m) => m.writeMemory(0n, Uint8Array.of(1)),
  regions: (m) => m.regions(),
  serialInput: (m) => m.serialInput(Uint8Array.of(1)),
  claimPorts: (m) => m.claimPorts(0x80, 1),
  claimMmio: (m) => m.claimMmio(0x1000000n, 4096),
  unclaim: (m) => m.unclaim(1),
  completeExit: (m) => m.completeExit(0, 1, undefined),
  answerVcpu: (m) => m.answerVcpu(0, new Uint8Array(1)),
  setIrqLine: (m) => m.setIrqLine(4, true),
};

/** Settles as it may: with a value, or with one of `codes`. */
async function settles(promise: Promise<unknown>, codes: string[]): Promise<void> {
  const outcome = await Promise.race([
    promise.then(
      () => 'fine',
      (error) => (error instanceof KvmsnapError ? error.code : String(error)),
    ),
    sleep(HANG_MS, 'hangs', { ref: false }),
  ]);
  expect(['fine', ...codes]).toContain(outcome);
}

async function machineIn(state: 'standing' | 'running' | 'talking' | 'asking') {
  const heard = new Heard();
  const code = state === 'asking' ? ASK : state === 'talking' ? TALK : SPIN;
  const machine = await rawMachine(code, heard);
  if (state === 'asking') machine.claimPorts(0x80, 1);
  if (state === 'talking') machine.setOutputFlow(1, false);
  if (state !== 'standing') await machine.resume();
  if (state === 'asking') await until('the guest asks', () => heard.asked.length > 0);
  return machine;
}

describe.each(CALLS)('$name', ({ running, call }) => {
  const states = running ? (['running', 'talking', 'asking'] as const) : (['standing'] as const);

  it('settles when close() comes at any moment after it', async () => {
    for (const state of states) {
      for (let round = 0; round < 6; round++) {
        const machine = await machineIn(state);
        const pending = settles(call(machine), ['ERR_CLOSED']);
        if (round % 3 === 1) await Promise.resolve();
        if (round % 3 === 2) await sleep(round % 2);
        const closed = [machine.close(), machine.close()];
        expect(machine.status).toBe('closed');
        await pending;
        for (const close of closed) await settles(close, []);
        await settles(machine.close(), []);
      }
    }
  });

  it('settles when handOver() comes at any moment after it, and is ERR_CLOSED from then on', async () => {
    for (const state of states) {
      for (let round = 0; round < 6; round++) {
        const machine = await machineIn(state);
        const pending = settles(call(machine), ['ERR_CLOSED']);
        if (round % 3 === 1) await Promise.resolve();
        if (round % 3 === 2) await sleep(round % 2);
        if (machine.status === 'closed') continue;
        const handedOver = machine.handOver();
        expect(machine.status).toBe('closed');
        const late = call(machine);
        if (call.toString().includes('.close()')) {
          await settles(late, []);
          await expect(handedOver).rejects.toMatchObject({ code: 'ERR_CLOSED' });
          continue;
        }
        await expect(late).rejects.toMatchObject({ code: 'ERR_CLOSED' });
        const heir = await handedOver;
        await pending;
        await expect(call(machine)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
        expect(heir.status).toBe('poisoned');
        // The old object closes nothing any more.
        await machine.close();
        expect(heir.regions()).toBeInstanceOf(Array);
        await heir.close();
      }
    }
  });

  it('settles when kill() comes at any moment after it', async () => {
    for (const state of states) {
      for (let round = 0; round < 4; round++) {
        const machine = await machineIn(state);
        const pending = settles(call(machine), ['ERR_POISONED']);
        if (round % 2 === 1) await sleep(round % 3);
        if (machine.status !== 'closed') await settles(machine.kill(), ['ERR_CLOSED']);
        await pending;
        expect(['poisoned', 'closed']).toContain(machine.status);
      }
    }
  });

  it('is ERR_CLOSED on a closed machine, and does not throw', async () => {
    const machine = await machineIn('standing');
    const closing = machine.close();
    for (const when of ['closing', 'closed']) {
      const promise = call(machine);
      expect(promise, when).toBeInstanceOf(Promise);
      if (call.toString().includes('.close()')) await promise;
      else await expect(promise, when).rejects.toMatchObject({ code: 'ERR_CLOSED' });
      await closing;
    }
  });
});

it.each(Object.entries(DIRECT))('%s throws ERR_CLOSED on a closed machine', async (_, call) => {
  const machine = await machineIn('running');
  const closing = machine.close();
  expect(() => call(machine)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
  await closing;
  expect(() => call(machine)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
});

it.each(Object.entries(DIRECT))(
  '%s throws ERR_CLOSED on a machine that was handed over',
  async (_, call) => {
    const machine = await machineIn('running');
    const handedOver = machine.handOver();
    expect(() => call(machine)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    const heir = await handedOver;
    expect(() => call(machine)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
    await heir.close();
  },
);

it('two freezes, input and memory writes at once: each is done', async () => {
  const machine = await machineIn('running');
  const frozen: Promise<unknown>[] = [];
  for (let i = 0; i < 50; i++) {
    frozen.push(machine.freeze('resume'), machine.getDirtyLog(0));
    machine.serialInput(new Uint8Array(16));
    machine.writeMemory(0x8000n, new Uint8Array(8192).fill(i));
  }
  await Promise.all(frozen);
  expect(machine.status).toBe('running');
  expect(machine.readMemory(0x8000n, 1)[0]).toBe(49);
});

it('a run that is being paused is never lost, whatever is asked meanwhile', async () => {
  const options = { dispatch: false, singleStep: false };
  for (let round = 0; round < 20; round++) {
    const machine = await machineIn('standing');
    const run = machine.runVcpu(0, options);
    const paused = machine.pause();
    // Refused until the first run has given its exit, which may be now.
    const others = [machine.runVcpu(0, options), machine.resume()].map((other) =>
      settles(other, ['ERR_STATE']),
    );
    await expect(run).resolves.toMatchObject({ kind: 'interrupted' });
    await paused;
    await machine.pause();
    await Promise.all(others);
    expect(machine.status).toBe('paused');
    await machine.close();
  }
});
