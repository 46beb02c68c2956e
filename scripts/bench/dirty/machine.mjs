// A machine with the guest dirtier (native/guest/dirtier.S), for rounds of writes given by the host.
import { setImmediate as turn } from 'node:timers/promises';
import { MiB, Vm } from '../../../dist/index.js';
import { GUEST_ABI as ABI } from '../../../dist/native/guest-abi.js';
import { readGuest } from '../../../dist/native/guests.js';

const LIST = 0x200000n;
const LIST_PAGES = MiB(2) / 4096;
const BASE = 0x400000n;
const LINE = ABI.DATA + BigInt(ABI.LINES);
const TICKS = ABI.DATA + BigInt(ABI.SCRATCH);
const FROM_LIST = 2n ** 64n - 1n;

const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};

export class BenchMachine {
  static async create(tracker, range, tscKhz) {
    const vm = await Vm.create({
      bare: { image: readGuest('dirtier'), mode: 'long', ring: 3 },
      memory: Number(BASE) + range * 4096,
      irqchip: false,
      ...(tracker === 'ring' ? { dirtyRing: 16384 } : {}),
    });
    await vm.start();
    return Object.assign(new BenchMachine(), { vm, range, tscKhz });
  }

  /** Puts down what the next round writes. These are writes of the VMM's. */
  prepare(pages) {
    this.vm.memory.write(LIST, new Uint8Array(BigUint64Array.from(pages, BigInt).buffer));
    this.pages = pages;
  }

  /** Microseconds that the guest took to write the pages of `prepare`. */
  async round() {
    const { memory } = this.vm;
    const done = memory.read(LINE + BigInt(ABI.ROUND_DONE), 8).readBigUInt64LE();
    for (const [offset, value] of [
      [ABI.ROUND_BASE, BASE],
      [ABI.ROUND_RANGE, this.range],
      [ABI.ROUND_COUNT, this.pages.length],
      [ABI.ROUND_SEED, FROM_LIST],
      [ABI.ROUND_JOURNAL, LIST],
      [ABI.ROUND_COMMAND, ABI.COMMAND_GO],
    ]) {
      memory.write(LINE + BigInt(offset), u64(value));
    }
    while (memory.read(LINE + BigInt(ABI.ROUND_DONE), 8).readBigUInt64LE() === done) {
      if (this.vm.status !== 'running') throw new Error(`the guest is ${this.vm.status}`);
      await turn();
    }
    const ticks = Number(memory.read(TICKS, 8).readBigUInt64LE());
    return (ticks * 1000) / this.tscKhz;
  }

  /** Writes every page once, so that no round meets a page that was never touched. */
  async touchAll() {
    this.prepare(Array.from({ length: LIST_PAGES * 64 }, (_, i) => i % this.range));
    for (let first = 0; first < this.range; first += this.pages.length) {
      this.prepare(this.pages.map((_, i) => (first + i) % this.range));
      await this.round();
    }
  }

  /** How an epoch compares with what the guest says it wrote. */
  compare(epoch) {
    const bytes = Uint8Array.from(this.vm.memory.read(LIST, this.pages.length * 8));
    const written = new Set(Array.from(new BigUint64Array(bytes.buffer), Number));
    const first = Number(BASE / 4096n);
    const [{ bitmap }] = epoch.slots;
    const has = (page) => (bitmap[page >> 3] & (1 << (page & 7))) !== 0;
    let missed = 0;
    for (const page of written) if (!has(first + page)) missed += 1;
    let named = 0;
    for (let page = 0; page < this.range; page++) if (has(first + page)) named += 1;
    return { distinct: written.size, missed, extra: named - (written.size - missed) };
  }
}
