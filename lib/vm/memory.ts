/** Guest RAM, by copy, and its KVM memory slots. */
import { requireArgument } from '../errors.js';
import type { NativeMachine, NativeRegion } from '../native/binding.js';

/** A KVM memory slot (`struct kvm_userspace_memory_region`). */
export interface MemorySlot {
  slot: number;
  /** First guest physical address, a multiple of 4096. */
  gpa: bigint;
  /** Bytes, a multiple of 4096. */
  size: number;
  /** KVM_MEM_LOG_DIRTY_PAGES: the slot has a dirty log. Default false. */
  logDirtyPages?: boolean;
  /** KVM_MEM_READONLY: the guest's writes become MMIO exits. Default false. */
  readOnly?: boolean;
}

const LOG_DIRTY_PAGES = 1;
const READ_ONLY = 2;

/** Which pages of a slot were written. */
export interface DirtyLog {
  slot: number;
  /** Bit n % 8 of byte n / 8 is page n of the slot. */
  bitmap: Uint8Array;
  /** How many bits are set. */
  count: number;
}

export class VmMemory {
  readonly #native: NativeMachine;

  /** @internal */
  constructor(native: NativeMachine) {
    this.#native = native;
  }

  /**
   * Copies guest memory out. The range may span adjacent slots and is at most 1 GiB.
   * `ERR_GUEST_ADDRESS`: not wholly RAM. Any state but closed; a running guest may write meanwhile.
   */
  read(gpa: bigint, length: number): Buffer {
    return this.#native.readMemory(gpa, length) as Buffer;
  }

  /** Copies into guest memory. `ERR_GUEST_ADDRESS`: not wholly RAM, and nothing is written. */
  write(gpa: bigint, bytes: Uint8Array): void {
    this.#native.writeMemory(gpa, bytes);
  }

  /** All slots, by address. */
  slots(): Required<MemorySlot>[] {
    return this.#native.regions().map(fromRegion);
  }

  /** KVM_SET_USER_MEMORY_REGION: a new slot of zeros. The machine must not be running. */
  async addSlot(slot: MemorySlot): Promise<void> {
    await this.#native.addSlot({
      slot: slot.slot,
      gpa: slot.gpa,
      size: slot.size,
      flags: flagsOf(slot),
    });
  }

  /** KVM_SET_USER_MEMORY_REGION of size 0. What it held is lost. The machine must not be running. */
  async removeSlot(slot: number): Promise<void> {
    await this.#native.removeSlot(slot);
  }

  /** Changes what a slot logs. The machine must not be running. */
  async setSlotFlags(
    slot: number,
    flags: Pick<MemorySlot, 'logDirtyPages' | 'readOnly'>,
  ): Promise<void> {
    await this.#native.setSlotFlags(slot, flagsOf(flags));
  }

  /**
   * KVM_GET_DIRTY_LOG: the pages written since the last call (with `manualDirtyLog`: since they were
   * cleared), by the guest or by the host. `ERR_IOCTL` unless the slot logs.
   */
  async getDirtyLog(slot: number): Promise<DirtyLog> {
    const bitmap = await this.#native.getDirtyLog(slot);
    let count = 0;
    for (const byte of bitmap) count += BITS_IN[byte] as number;
    return { slot, bitmap, count };
  }

  /**
   * KVM_CLEAR_DIRTY_LOG, on a machine made with `manualDirtyLog`: forgets the pages whose bits are set
   * and watches them again; `ERR_STATE` on another machine. `firstPage` is a multiple of 64, and so is `pages` but at the slot's end.
   */
  async clearDirtyLog(
    slot: number,
    range: { firstPage: number; pages: number; bitmap: Uint8Array },
  ): Promise<void> {
    requireArgument(
      range.bitmap.length * 8 >= range.pages,
      'the bitmap needs a bit for each page of the range',
    );
    await this.#native.clearDirtyLog(slot, range.firstPage, range.pages, range.bitmap);
  }
}

const BITS_IN = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0;
  for (let rest = byte; rest > 0; rest >>= 1) bits += rest & 1;
  return bits;
});

function flagsOf({ logDirtyPages, readOnly }: Partial<MemorySlot>): number {
  return (logDirtyPages ? LOG_DIRTY_PAGES : 0) | (readOnly ? READ_ONLY : 0);
}

function fromRegion({ slot, gpa, size, flags }: NativeRegion): Required<MemorySlot> {
  return {
    slot,
    gpa,
    size,
    logDirtyPages: (flags & LOG_DIRTY_PAGES) !== 0,
    readOnly: (flags & READ_ONLY) !== 0,
  };
}
