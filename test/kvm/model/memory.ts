/** Guest memory as it has to be: pages that are never changed, only replaced, so that a copy is cheap. */
import type { Vm } from '../../../lib/index.js';

export const PAGE = 4096;
const ZEROS = Buffer.alloc(PAGE);

export interface Area {
  gpa: number;
  size: number;
}

export class ModelMemory {
  readonly areas: readonly Area[];
  /** By number of the page; pages that are not here are zeros. */
  readonly #pages: Map<number, Buffer>;

  constructor(areas: readonly Area[], pages: ReadonlyMap<number, Buffer> = new Map()) {
    this.areas = areas;
    this.#pages = new Map(pages);
  }

  /** What a machine holds now. */
  static of(vm: Vm): ModelMemory {
    const areas = vm.memory.slots().map(({ gpa, size }) => ({ gpa: Number(gpa), size }));
    const memory = new ModelMemory(areas);
    for (const { gpa, size } of areas) memory.write(gpa, vm.memory.read(BigInt(gpa), size));
    return memory;
  }

  copy(): ModelMemory {
    return new ModelMemory(this.areas, this.#pages);
  }

  write(gpa: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const at = gpa + done;
      const piece = bytes.subarray(done, done + PAGE - (at % PAGE));
      const page = Buffer.from(this.#page(Math.floor(at / PAGE)));
      page.set(piece, at % PAGE);
      this.#pages.set(Math.floor(at / PAGE), page);
      done += piece.length;
    }
  }

  word(gpa: number): bigint {
    return this.#page(Math.floor(gpa / PAGE)).readBigUInt64LE(gpa % PAGE);
  }

  setWord(gpa: number, value: bigint): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(value);
    this.write(gpa, bytes);
  }

  /** Pages of which one has other content than the other. */
  differences(other: ModelMemory): number[] {
    const numbers = new Set([...this.#pages.keys(), ...other.#pages.keys()]);
    return [...numbers].filter((page) => {
      const [here, there] = [this.#page(page), other.#page(page)];
      return here !== there && !here.equals(there);
    });
  }

  /** What is wrong in a machine's memory, if anything. */
  fault(vm: Vm): string | undefined {
    const wrong: string[] = [];
    for (const { gpa, size } of this.areas) {
      const found = vm.memory.read(BigInt(gpa), size);
      for (let offset = 0; offset < size; offset += PAGE) {
        const expected = this.#page((gpa + offset) / PAGE);
        if (expected.compare(found, offset, offset + PAGE) === 0) continue;
        const at = expected.findIndex((byte, i) => byte !== found[offset + i]);
        wrong.push(
          `0x${(gpa + offset + at).toString(16)} is ${found[offset + at]}, not ${expected[at]}`,
        );
      }
    }
    return wrong.length === 0
      ? undefined
      : `${wrong.length} pages are wrong: ${wrong.slice(0, 8).join('; ')}`;
  }

  #page(number: number): Buffer {
    return this.#pages.get(number) ?? ZEROS;
  }
}
