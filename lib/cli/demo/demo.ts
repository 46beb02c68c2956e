/** The demo: a guest counts; it is snapshotted mid-count; another process lets it count on. */
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { KvmsnapError } from '../../errors.js';
import type { SnapshotStats } from '../../vm/save.js';
import type { Vm } from '../../vm/vm.js';
import { unpackError } from '../control/protocol.js';
import { onSignal } from '../ending.js';
import { signalExitCode } from '../exit-codes.js';
import { lastNumber } from './count.js';
import { createCounter, readCount } from './counter.js';
import { type Restored, restoredSchema } from './restored.js';

export const DEMO_TAG = 'demo';
/** Numbers to wait for before the snapshot, and after the restore. */
const COUNT_BEFORE = 20;
const COUNT_AFTER = 10;
const LIMIT_MS = 60_000;
const RESTORED_MAIN = fileURLToPath(new URL('./restored-main.js', import.meta.url));

export interface DemoResult {
  /** The last number that the first machine printed whole. */
  countAtSnapshot: number;
  /** The first number that was printed whole after the restore. */
  countAfterRestore: number;
  /** The last number that the second machine printed. */
  countAtEnd: number;
  pid: number;
  restoredInPid: number;
  /** Where the snapshot is; absent when it was removed. */
  store?: string;
  digest: string;
  costs: {
    createMs: number;
    firstNumberMs: number;
    /** How long the guest stood still; it is then left paused. */
    pauseMs: number;
    writeMs: number;
    bytes: number;
    /** Starting Node in the new process, loading kvmsnap, and all that follows. */
    newProcessMs: number;
    restoreMs: number;
    /** From the call of restore to the first character of the guest. */
    firstOutputMs: number;
  };
}

/** Narrates with `say`. The store is removed at the end unless one is named. */
export async function runDemo(
  store: string | undefined,
  say: (text: string) => void,
): Promise<DemoResult> {
  const path = store === undefined ? mkdtempSync(join(tmpdir(), 'kvmsnap-demo-')) : resolve(store);
  // Ctrl-C must not leave the store behind either.
  const clean = (): void => {
    if (store === undefined) rmSync(path, { recursive: true, force: true });
  };
  using _ = onSignal((signal) => {
    clean();
    process.exit(signalExitCode(signal));
  });
  try {
    const result = await count(join(path, store === undefined ? 'store' : ''), say);
    return store === undefined ? result : { ...result, store: path };
  } finally {
    clean();
  }
}

async function count(path: string, say: (text: string) => void): Promise<DemoResult> {
  const started = performance.now();
  await using vm = await createCounter();
  const createMs = performance.now() - started;
  say(
    `A machine of 64 MiB is made in process ${process.pid}; its guest counts on its serial port.`,
  );
  let serial = '';
  let firstNumberMs = 0;
  vm.console.on('data', (bytes: Buffer) => {
    if (serial === '') firstNumberMs = performance.now() - started;
    serial += bytes.toString('latin1');
  });
  await vm.start();
  await until(vm, () => lastNumber(serial) >= COUNT_BEFORE);

  // Paused after it, so that what this machine printed and what the snapshot holds end together.
  using snapshot = await vm.snapshot({ store: path, tag: DEMO_TAG, then: 'pause' });
  const countInMemory = readCount(vm);
  const printed = finished(vm.console, { writable: false });
  await vm.close();
  await printed;
  const countAtSnapshot = lastNumber(serial);
  const stats = snapshot.stats as SnapshotStats;
  say(`It printed ${summary(serial)} and was snapshotted while it ran.`);

  const spawned = performance.now();
  const restored = await restoreElsewhere(path, snapshot.digest);
  const newProcessMs = performance.now() - spawned;
  const joined = serial + restored.serial;
  const countAtEnd = lastNumber(joined);
  const countAfterRestore = firstWholeNumber(joined, serial.length);
  check(restored.countInMemory === countInMemory, () => {
    return `memory held count ${restored.countInMemory} after the restore, not ${countInMemory}`;
  });
  check(countAfterRestore === countAtSnapshot + 1, () => {
    return `it went on with ${countAfterRestore} instead of ${countAtSnapshot + 1}`;
  });
  // The count in memory follows the line: it is that line's number, or still the one before.
  check([countAtSnapshot, countAtSnapshot - 1].includes(countInMemory), () => {
    return `memory held count ${countInMemory}, where the serial port said ${countAtSnapshot}`;
  });
  check([countAtEnd, countAtEnd - 1].includes(restored.countInMemoryAfter), () => {
    return `memory counted ${restored.countInMemoryAfter}, the serial port ${countAtEnd}`;
  });
  say(
    `Process ${restored.pid} restored it, and it went on with ${countAfterRestore}, ` +
      `${countAfterRestore + 1}, … ${countAtEnd}: no number missing, none twice, in memory and on ` +
      'the serial port.',
  );
  return {
    countAtSnapshot,
    countAfterRestore,
    countAtEnd,
    pid: process.pid,
    restoredInPid: restored.pid,
    digest: snapshot.digest,
    costs: {
      createMs,
      firstNumberMs,
      pauseMs: stats.pauseMs,
      writeMs: stats.writeMs,
      bytes: stats.bytes,
      newProcessMs,
      restoreMs: restored.restoreMs,
      firstOutputMs: restored.firstOutputMs,
    },
  };
}

/** The number on the first line that ends after `offset`. */
function firstWholeNumber(serial: string, offset: number): number {
  const end = serial.indexOf('\n', offset);
  return Number(serial.slice(serial.lastIndexOf('\n', end - 1) + 1, end));
}

async function restoreElsewhere(store: string, ref: string): Promise<Restored> {
  const child = fork(RESTORED_MAIN, [store, ref, String(COUNT_AFTER)], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    timeout: LIMIT_MS,
  });
  const message = await new Promise<unknown>((resolve, reject) => {
    child.once('message', resolve);
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      reject(failure(`the new process ended (${signal ?? code}) without an answer`));
    });
  });
  const answer = z
    .discriminatedUnion('ok', [
      z.object({ ok: z.literal(true), value: restoredSchema }),
      z.object({
        ok: z.literal(false),
        error: z.object({ code: z.string(), message: z.string() }),
      }),
    ])
    .parse(message);
  if (!answer.ok) throw unpackError(answer.error);
  return answer.value;
}

async function until(vm: Vm, condition: () => boolean): Promise<void> {
  const deadline = performance.now() + LIMIT_MS;
  while (!condition()) {
    if (performance.now() > deadline)
      throw failure(`the guest did not count within ${LIMIT_MS} ms`);
    if (vm.status !== 'running' && vm.status !== 'paused') {
      throw failure(`the guest stopped: ${(await vm.wait()).reason}`);
    }
    await sleep(2);
  }
}

const summary = (serial: string): string => {
  const last = lastNumber(serial);
  const rest = serial.slice(serial.lastIndexOf('\n') + 1);
  return `1, 2, … ${last}${rest === '' ? '' : ` and "${rest}" of the next line`}`;
};

function check(holds: boolean, problem: () => string): void {
  if (!holds) throw failure(problem());
}

const failure = (problem: string): KvmsnapError =>
  new KvmsnapError('ERR_STATE', `the demo failed: ${problem}. Please report it`);
