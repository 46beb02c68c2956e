/** A machine object's hold on its native machine, which a pool takes back and gives to another. */
import { KvmsnapError } from '../errors.js';
import type { MachineStatus, NativeMachine } from '../native/binding.js';

export class Handle {
  #native: NativeMachine | undefined;

  constructor(native: NativeMachine) {
    this.#native = native;
  }

  /** `ERR_CLOSED` once it was released; the native machine says so itself when it is closed. */
  get native(): NativeMachine {
    if (this.#native === undefined) throw new KvmsnapError('ERR_CLOSED', 'the machine was closed');
    return this.#native;
  }

  get status(): MachineStatus {
    return this.#native?.status ?? 'closed';
  }

  /** Nobody reaches it from here any more. */
  release(): NativeMachine {
    const { native } = this;
    this.#native = undefined;
    return native;
  }
}
