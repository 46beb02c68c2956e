/**
 * Finds guests that have halted for good: Linux after `halt`. KVM with an in-kernel irqchip gives no exit
 * for a CPU that halts with interrupts off; it sleeps until an NMI that nobody sends. Before it a guest
 * says that it halts, or writes what it has to its disks. So a guest is looked at when it has used devices
 * and then, for a while, none: an idle guest is looked at once, and one that computes hardly ever.
 */
import { isBootedByFirmware } from '../boot/index.js';
import type { NativeMachine } from '../native/binding.js';

const EVERY_MS = 1000;

export class HaltWatch {
  readonly #native: NativeMachine;
  #timer: NodeJS.Timeout | undefined;
  /** Uses of devices, at the last tick and when the guest was last looked at. */
  #seen: number | undefined;
  #looked: number | undefined;

  constructor(native: NativeMachine) {
    this.#native = native;
  }

  /** The machine runs. Once it does not, the watch ends by itself; nobody is kept by it. */
  begin(): void {
    this.#looked = undefined;
    if (this.#timer !== undefined) return;
    const watch = new WeakRef(this);
    const timer = setInterval(() => {
      const alive = watch.deref();
      if (alive) alive.#tick();
      else clearInterval(timer);
    }, EVERY_MS).unref();
    this.#timer = timer;
  }

  #end(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    const native = this.#native;
    if (native.status !== 'running') {
      this.#end();
      return;
    }
    const uses = native.deviceAccesses();
    const isQuiet = uses === this.#seen && uses !== this.#looked;
    this.#seen = uses;
    if (!isQuiet) return;
    const booted = isBooted(native);
    if (booted === false) this.#end();
    if (!booted) return;
    this.#looked = uses;
    // The machine may be closed, or paused, before that has its turn.
    native.endIfHalted().catch(() => {});
  }
}

/** Bare guests may halt for the host to change them. Undefined when memory cannot be read now. */
function isBooted(native: NativeMachine): boolean | undefined {
  try {
    return isBootedByFirmware((gpa, length) => native.readMemory(gpa, length));
  } catch {
    return undefined;
  }
}
