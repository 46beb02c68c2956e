/** A machine without KVM, for tests of what stands between it and its clients. */
import { Duplex } from 'node:stream';
import { HostedMachine } from '../../../lib/cli/control/hosted.js';
import type { Vm } from '../../../lib/vm/vm.js';

export class FakeVm {
  status = 'paused';
  /** What clients typed. */
  typed = '';
  readonly console: Duplex;
  readonly #stopped: Promise<{ reason: 'power-off' }>;
  powerOff: () => void = () => {};

  constructor() {
    const type = (text: string): void => {
      this.typed += text;
    };
    this.console = new Duplex({
      read() {},
      write(chunk: Buffer, _encoding, done) {
        type(chunk.toString('latin1'));
        done();
      },
    });
    this.#stopped = new Promise((resolve) => {
      this.powerOff = () => resolve({ reason: 'power-off' });
    });
  }

  print(text: string): void {
    this.console.push(text);
  }

  wait() {
    return this.#stopped;
  }

  async pause() {
    this.status = 'paused';
  }

  async resume() {
    this.status = 'running';
  }

  async close() {
    this.status = 'closed';
    this.console.push(null);
  }

  describe() {
    return { vcpus: 1, memory: { regions: [{ slot: 0, gpa: 0, size: 4096 }] } };
  }
}

export function fakeMachine(): { vm: FakeVm; machine: HostedMachine } {
  const vm = new FakeVm();
  return { vm, machine: new HostedMachine('fake', 'nothing', vm as unknown as Vm) };
}
