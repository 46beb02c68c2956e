// One emulated host: starts QEMU, passes on what the job prints, and says how it ended.

import { spawn } from 'node:child_process';
import { appendFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { openChannels } from './channels.mjs';
import { dumpTasks } from './dump.mjs';
import { hasCommand } from './packages.mjs';
import { qemuArguments } from './qemu.mjs';

const BOOT_LIMIT_MS = 120_000;
const POWER_OFF_LIMIT_MS = 15_000;
const HEARTBEAT_MS = 1000;
const QEMU = 'qemu-system-x86_64';

// If this process is killed, the kernel kills QEMU too.
function spawnQemu(args) {
  const options = { stdio: ['ignore', 'pipe', 'pipe'], detached: true };
  return hasCommand('setpriv')
    ? spawn('setpriv', ['--pdeathsig', 'KILL', '--', QEMU, ...args], options)
    : spawn(QEMU, args, options);
}

/**
 * QEMU's emulation of nested SVM loses a timer's interrupt once in some hours: the machine then halts for good, at no
 * CPU time, until another interrupt comes. Each character at its serial port is one.
 *
 * @returns what ends it
 */
function startHeartbeat(serial) {
  const timer = setInterval(() => serial.write('\0'), HEARTBEAT_MS);
  return () => clearInterval(timer);
}

/**
 * Runs one job. Resolves, never rejects for what happens inside, with one of
 * - `{ kind: 'exited', status, leftBehind }`: the job ended
 * - `{ kind: 'died' }`: QEMU ended without the job's exit status: a panic, a reset
 * - `{ kind: 'failed', reason }`: the host could not be made ready
 * - `{ kind: 'timeout', limit }`: `'boot'` or `'job'`; QEMU was killed
 * - `{ kind: 'aborted' }`: `signal` fired; QEMU was killed
 * each with `bootMs`, `totalMs`, `qemuOutput`.
 *
 * @param machine `serialLog`, a path, and what {@link qemuArguments} takes, less the sockets
 * @param limits `{ timeoutMs, signal }`
 * @param sink `{ stdout(chunk), stderr(chunk), ready(ms) }`
 */
export async function runMachine({ serialLog, ...machine }, { timeoutMs, signal }, sink) {
  const started = performance.now();
  const elapsed = () => Math.round(performance.now() - started);
  const timers = [];
  const qemuOutput = [];
  let channels;
  let qemu;
  let outcome;
  let bootMs;
  let leftBehind = false;
  let stopHeartbeat = () => {};

  // The first word on how the run ended holds; what follows it is the consequence.
  const conclude = (result) => {
    outcome ??= result;
  };
  const concludeBeforePowerOff = (result) => {
    conclude(result);
    timers.push(setTimeout(() => qemu.kill('SIGKILL'), POWER_OFF_LIMIT_MS));
  };
  const onAbort = () => {
    conclude({ kind: 'aborted' });
    qemu.kill('SIGKILL');
  };
  const onTimeout = async (limit) => {
    if (outcome || (limit === 'boot' && bootMs !== undefined)) return;
    conclude({ kind: 'timeout', limit });
    // After a break its characters would be commands.
    stopHeartbeat();
    await dumpTasks(channels.sockets, serialLog);
    qemu.kill('SIGKILL');
  };
  const onControl = (line) => {
    const [word, ...rest] = line.split(' ');
    if (word === 'ready') {
      bootMs = elapsed();
      stopHeartbeat = startHeartbeat(channels.sockets.serial);
      sink.ready(bootMs);
    } else if (word === 'exit') {
      concludeBeforePowerOff({ kind: 'exited', status: Number(rest[0]), leftBehind });
    } else if (word === 'failed') {
      concludeBeforePowerOff({ kind: 'failed', reason: rest.join(' ') });
    } else if (word === 'left-behind') {
      leftBehind = true;
    }
  };

  try {
    writeFileSync(serialLog, '');
    channels = await openChannels({
      stdout: (socket) => socket.on('data', sink.stdout),
      stderr: (socket) => socket.on('data', sink.stderr),
      control: (socket) => createInterface({ input: socket }).on('line', onControl),
      // Written here: with logfile=, QEMU logs a character again each time it has to retry it.
      serial: (socket) => socket.on('data', (chunk) => appendFileSync(serialLog, chunk)),
      monitor: (socket) => socket.resume(),
    });
    signal?.throwIfAborted();
    qemu = spawnQemu(qemuArguments({ ...machine, sockets: channels.paths }));
    signal?.addEventListener('abort', onAbort, { once: true });
    timers.push(setTimeout(onTimeout, BOOT_LIMIT_MS, 'boot'));
    timers.push(setTimeout(onTimeout, timeoutMs, 'job'));
    for (const stream of [qemu.stdout, qemu.stderr]) {
      stream.on('data', (chunk) => qemuOutput.push(chunk));
    }
    const ended = await new Promise((resolve) => {
      qemu.once('error', (error) => resolve(`cannot start ${QEMU}: ${error.message}`));
      qemu.once('close', (code, by) => resolve(by ? `killed by ${by}` : `exit status ${code}`));
    });
    await channels.drained();
    conclude({ kind: 'died', reason: `QEMU ended (${ended})` });
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
    conclude({ kind: 'aborted' });
  } finally {
    qemu?.kill('SIGKILL');
    stopHeartbeat();
    for (const timer of timers) clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
    channels?.close();
  }
  return {
    ...outcome,
    bootMs,
    totalMs: elapsed(),
    qemuOutput: Buffer.concat(qemuOutput).toString(),
  };
}
