/** Small snapshots for tests: no device and no addon needed. */
import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import type { RawMachineState } from '../../../lib/native/binding.js';
import type { MemoryWritten, SnapshotWriter } from '../../../lib/snapshot/commit.js';
import type { SnapshotConfigInput } from '../../../lib/snapshot/config.js';
import { crc32c } from '../../../lib/snapshot/crc32c.js';
import type { SnapshotStore } from '../../../lib/snapshot/store.js';

export const PAGE = 4096;
export const MEMORY = 64 * PAGE;
export const CHUNK = 2 * PAGE;

const bytes = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 0xff);

export function sampleState(seed = 1): RawMachineState {
  return {
    vm: {
      pic_master: bytes(520, seed),
      pic_slave: bytes(520, seed + 1),
      ioapic: bytes(520, seed + 2),
      pit2: bytes(112, seed + 3),
      clock: bytes(48, seed + 4),
    },
    vcpus: [
      {
        cpuid2: bytes(80, seed),
        regs: bytes(144, seed),
        sregs2: bytes(320, seed),
        xsave2: bytes(4096, seed),
        xcrs: bytes(392, seed),
        debugregs: bytes(128, seed),
        msrs: bytes(32, seed),
        lapic: bytes(1024, seed),
        vcpu_events: bytes(64, seed),
        mp_state: bytes(4, seed),
        tsc_khz: 2_400_000,
      },
    ],
    devices: {
      serial: {
        ier: 1,
        lcr: 3,
        fifo: bytes(5, seed),
        transmitted: 2n ** 40n,
        zero: 0n,
        offset: -7,
      },
      i8042: { command: 0x61 },
    },
  };
}

export function sampleConfig(): SnapshotConfigInput {
  return {
    machine: {
      vcpus: 1,
      memory: { regions: [{ slot: 0, gpa: 0, size: MEMORY }] },
      irqchip: true,
      devices: {
        serial: true,
        i8042: true,
        debugPort: true,
        exitPort: 0xf4,
        cmos: true,
        acpiPower: true,
      },
    },
    host: {
      cpu: {
        vendor: 'AuthenticAMD',
        family: 25,
        model: 1,
        stepping: 1,
        features: ['sse2', 'avx2'],
      },
      tscKhz: 2_400_000,
      kernel: '6.1.0',
      kvm: { apiVersion: 12, capabilities: { KVM_CAP_XSAVE2: 4096 } },
    },
    requires: { capabilities: { KVM_CAP_XSAVE2: 1 } },
    created: new Date('2026-01-02T03:04:05.678Z'),
  };
}

/** Pages to write: page number in guest memory -> byte that fills it. */
export type Pages = Record<number, number>;

/** Does what `NativeImage.write` does: fills parts of at most `partPages`, gives the index. */
export function writePages(writer: SnapshotWriter, pages: Pages, partPages = 4): MemoryWritten {
  const numbers = Object.keys(pages).map(Number);
  const fds = writer.openParts(Math.ceil(numbers.length / partPages));
  const contents: Buffer[] = fds.map(() => Buffer.alloc(0));
  const extents = numbers.map((page, i) => {
    const file = Math.floor(i / partPages);
    const offset = (contents[file] as Buffer).length;
    contents[file] = Buffer.concat([contents[file] as Buffer, Buffer.alloc(PAGE, pages[page])]);
    return { gpa: BigInt(page * PAGE), length: PAGE, file, offset };
  });
  fds.forEach((fd, i) => {
    writeSync(fd, contents[i] as Buffer, 0, undefined, 0);
  });
  return {
    parts: contents.map((part) => ({
      sha256: createHash('sha256').update(part).digest(),
      size: part.length,
    })),
    extents,
    crc32c: contents.map((part) => checksums(part)),
    zeros: [],
    chunkSize: CHUNK,
  };
}

export function checksums(part: Uint8Array, chunkSize = CHUNK): Uint32Array {
  return Uint32Array.from({ length: Math.ceil(part.length / chunkSize) }, (_, i) =>
    crc32c(part.subarray(i * chunkSize, (i + 1) * chunkSize)),
  );
}

export interface SampleOptions {
  tag?: string;
  pages?: Pages;
  zeros?: number[];
  parentDigest?: string;
  seed?: number;
  partPages?: number;
}

export async function addSample(store: SnapshotStore, options: SampleOptions = {}) {
  const writer = await store.begin();
  const memory = writePages(writer, options.pages ?? { 0: 1, 1: 2, 9: 3 }, options.partPages);
  const zeros = (options.zeros ?? []).map((page) => ({ gpa: BigInt(page * PAGE), length: PAGE }));
  return writer.commit({
    tag: options.tag ?? 'sample',
    config: sampleConfig(),
    state: sampleState(options.seed),
    memory: { ...memory, zeros },
    ...(options.parentDigest === undefined ? {} : { parentDigest: options.parentDigest }),
  });
}
