// One emulated host: starts QEMU, passes on what the job prints, and says how it ended.

import { spawn } from 'node:child_process';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { hasCommand } from './packages.mjs';
import { PORTS, qemuArguments } from './qemu.mjs';

const BOOT_LIMIT_MS = 120_000;
const QEMU = 'qemu-system-x86_64';

/** Listens at `path` for the one connection that QEMU makes there. */
async function listenForQemu(path) {
  const server = createServer();
  const connection = new Promise((resolve) => server.once('connection', resolve));
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return { server, connection };
}

// If this process is killed, the kernel kills QEMU too.
function spawnQemu(args) {
  const options = { stdio: ['ignore', 'pipe', 'pipe'], detached: true };
  return hasCommand('setpriv')
    ? spawn('setpriv', ['--pdeathsig', 'KILL', '--', QEMU, ...args], options)
    : spawn(QEMU, args, options);
}

// Asks the inner kernel over its serial line what it is doing (Documentation/admin-guide/sysrq.rst):
// a break, then a command key (9: print everything; t: all tasks; w: blocked tasks; l: what the CPU
// is doing). The answers go to the serial log. A kernel that hangs with interrupts off does not
// answer: an NMI makes it panic where it stands, with a backtrace.
async function dumpTasks(monitor, serial, serialLog) {
  if (!monitor || !serial) return;
  const qmp = (execute, args) =>
    monitor.write(`${JSON.stringify({ execute, ...(args && { arguments: args }) })}\n`);
  qmp('qmp_capabilities');
  for (const key of ['9', 't', 'w', 'l']) {
    qmp('chardev-send-break', { id: 'serial' });
    await delay(100);
    serial.write(key);
    await delay(500);
  }
  if (!readFileSync(serialLog, 'utf8').includes('task:')) {
    qmp('inject-nmi');
    await delay(2000);
  }
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
  const runtime = mkdtempSync(join(tmpdir(), 'kvmsnap-host-'));
  const names = [...PORTS, 'serial', 'monitor'];
  const sockets = Object.fromEntries(names.map((name) => [name, join(runtime, name)]));
  const channels = {};
  const connected = {};
  const timers = [];
  const started = performance.now();
  const elapsed = () => Math.round(performance.now() - started);
  let qemu;
  let outcome;
  let bootMs;
  const qemuOutput = [];

  // The first word on how the run ended holds; what follows it is the consequence.
  const conclude = (result) => {
    outcome ??= result;
  };
  const kill = (result) => {
    conclude(result);
    qemu?.kill('SIGKILL');
  };
  const onAbort = () => kill({ kind: 'aborted' });
  const onTimeout = async (limit) => {
    if (outcome) return;
    conclude({ kind: 'timeout', limit });
    await dumpTasks(connected.monitor, connected.serial, serialLog);
    qemu.kill('SIGKILL');
  };
  const onControl = (line) => {
    const [word, ...rest] = line.split(' ');
    if (word === 'ready') {
      bootMs = elapsed();
      clearTimeout(bootTimer);
      sink.ready?.(bootMs);
    } else if (word === 'exit') {
      conclude({ kind: 'exited', status: Number(rest[0]), leftBehind });
    } else if (word === 'failed') {
      conclude({ kind: 'failed', reason: rest.join(' ') });
    } else if (word === 'left-behind') {
      leftBehind = true;
    }
  };
  let leftBehind = false;
  let bootTimer;

  try {
    writeFileSync(serialLog, '');
    for (const name of names) channels[name] = await listenForQemu(sockets[name]);
    signal?.throwIfAborted();
    qemu = spawnQemu(qemuArguments({ ...machine, sockets }));
    signal?.addEventListener('abort', onAbort, { once: true });
    bootTimer = setTimeout(onTimeout, BOOT_LIMIT_MS, 'boot');
    timers.push(bootTimer, setTimeout(onTimeout, timeoutMs, 'job'));
    for (const stream of [qemu.stdout, qemu.stderr]) {
      stream.on('data', (chunk) => qemuOutput.push(chunk));
    }
    const drained = Object.entries(channels).map(async ([name, { connection }]) => {
      const socket = await connection;
      connected[name] = socket;
      // QEMU resets the connection when it is killed.
      socket.on('error', () => {});
      if (name === 'control') createInterface({ input: socket }).on('line', onControl);
      else if (PORTS.includes(name)) socket.on('data', (chunk) => sink[name](chunk));
      // Written here: with logfile=, QEMU logs a character again each time it has to retry it.
      else if (name === 'serial') socket.on('data', (chunk) => appendFileSync(serialLog, chunk));
      else socket.resume();
      await new Promise((resolve) => socket.once('close', resolve));
    });
    const ended = await new Promise((resolve) => {
      qemu.once('error', (error) => resolve(`cannot start ${QEMU}: ${error.message}`));
      qemu.once('close', (code, by) => resolve(by ? `killed by ${by}` : `exit status ${code}`));
    });
    // What QEMU wrote last may still be on its way to us.
    await Promise.race([Promise.all(drained), delay(2000, undefined, { ref: false })]);
    conclude({ kind: 'died', reason: `QEMU ended (${ended})` });
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
    conclude({ kind: 'aborted' });
  } finally {
    qemu?.kill('SIGKILL');
    for (const timer of timers) clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
    for (const { server } of Object.values(channels)) server.close();
    for (const socket of Object.values(connected)) socket.destroy();
    rmSync(runtime, { recursive: true, force: true });
  }
  return {
    ...outcome,
    bootMs,
    totalMs: elapsed(),
    qemuOutput: Buffer.concat(qemuOutput).toString(),
  };
}
