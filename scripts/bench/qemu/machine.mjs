// A QEMU process with the guest of guest.S, its monitor and its serial port.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { connect } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { qemuArguments } from './arguments.mjs';
import { Monitor } from './qmp.mjs';

export const QEMU = 'qemu-system-x86_64';
const ANSWER_MS = 60_000;

const alive = new Set();
// None outlives this program, however it ends.
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(130));

/** The socket that QEMU makes some time after its start. */
async function connected(file, child) {
  for (;;) {
    const socket = connect(file);
    try {
      await once(socket, 'connect');
      // A QEMU that goes is noticed by who waits for it.
      socket.on('error', () => undefined);
      return socket;
    } catch (error) {
      if (!['ENOENT', 'ECONNREFUSED'].includes(error.code)) throw error;
    }
    if (child.exitCode !== null || child.signalCode !== null) throw new Error('QEMU has ended');
    await sleep(1);
  }
}

let count = 0;

export class Machine {
  /** See {@link qemuArguments} for the options. Resolves when its monitor answers. */
  static async start(options, scratch) {
    const name = path.join(scratch, `qemu${count++}`);
    const machine = new Machine();
    machine.sockets = { monitor: `${name}.qmp`, serial: `${name}.tty` };
    const child = spawn(QEMU, qemuArguments({ ...options, sockets: machine.sockets }), {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    alive.add(child);
    machine.child = child;
    machine.complaints = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      machine.complaints += text;
    });
    machine.ended = once(child, 'close').finally(() => alive.delete(child));
    machine.ended.catch(() => undefined);
    try {
      machine.serial = await connected(machine.sockets.serial, child);
      machine.monitor = new Monitor(await connected(machine.sockets.monitor, child));
      await machine.monitor.ready();
      return machine;
    } catch (error) {
      await machine.end();
      throw new Error(`QEMU does not start: ${machine.complaints.trim() || error.message}`);
    }
  }

  /** The next byte that the guest writes. */
  async heard() {
    try {
      const [bytes] = await once(this.serial, 'data', { signal: AbortSignal.timeout(ANSWER_MS) });
      return bytes.toString('latin1');
    } catch (error) {
      throw new Error(`the guest says nothing: ${this.complaints.trim() || error.message}`);
    }
  }

  /** Until the guest has answered. */
  async ping() {
    const answer = this.heard();
    this.serial.write('p');
    if ((await answer) !== 'p') throw new Error('the guest answers with something else');
  }

  async end() {
    this.child.kill('SIGKILL');
    this.serial?.destroy();
    await this.ended.catch(() => undefined);
    for (const file of Object.values(this.sockets)) rmSync(file, { force: true });
  }
}
