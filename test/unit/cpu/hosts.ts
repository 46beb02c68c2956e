/** CPUIDs of two hosts: one recorded, one written after Intel's manual with what the first lacks. */
import { readFileSync } from 'node:fs';
import { type CpuidEntry, encodeCpuid } from '../../../lib/cpu/cpuid-entries.js';

type Row = readonly [leaf: number, index: number, flags: number, ...registers: number[]];

const entry = ([leaf, index, flags, eax = 0, ebx = 0, ecx = 0, edx = 0]: Row): CpuidEntry => ({
  function: leaf,
  index,
  flags,
  eax,
  ebx,
  ecx,
  edx,
});

const recorded = JSON.parse(
  readFileSync(new URL('./fixtures/supported-cpuid-amd-pvm.json', import.meta.url), 'utf8'),
) as { entries: string[] };

/** KVM_GET_SUPPORTED_CPUID as KVM on PVM gave it on an AMD host: no XSAVE, no AVX, XCR0 0xE7. */
export const AMD_PVM: CpuidEntry[] = recorded.entries.map((line) =>
  entry(line.split(' ').map((word) => Number.parseInt(word, 16)) as unknown as Row),
);

const word = (text: string) => Buffer.from(text, 'latin1').readUInt32LE();

/** An Intel server with AVX-512, PKU, AMX, nested VMX and SGX on 16 threads. */
export const INTEL: CpuidEntry[] = (
  [
    [0, 0, 0, 0x1f, word('Genu'), word('ntel'), word('ineI')],
    [1, 0, 0, 0x000806f8, 0x05100800, 0xf7fa3223, 0x1f8bfbff],
    [4, 0, 1, 0x3c004121, 0x02c0003f, 0x3f, 0],
    [4, 1, 1, 0x3c004122, 0x01c0003f, 0x3f, 0],
    [4, 2, 1, 0x3c004143, 0x03c0003f, 0x7ff, 0],
    [4, 3, 1, 0x3c03c163, 0x03c0003f, 0x1bfff, 4],
    [4, 4, 1],
    [6, 0, 0, 4],
    [7, 0, 1, 2, 0xf1bf27ef, 0x5b415ffe, 0xbfc14410],
    [7, 1, 1, 0x00001c30],
    [7, 2, 1, 0, 0, 0, 0x17],
    [0xa, 0, 0, 0x07300802, 0, 0, 0x603],
    [0xb, 0, 1, 1, 2, 0x100, 5],
    [0xb, 1, 1, 4, 16, 0x201, 5],
    [0xd, 0, 1, 0x602e7, 0x2b00, 0x2b00, 0],
    [0xd, 1, 1, 0x1f, 0x2b00, 0x1800, 0],
    [0xd, 2, 1, 0x100, 0x240, 0, 0],
    [0xd, 5, 1, 0x40, 0x440, 0, 0],
    [0xd, 6, 1, 0x200, 0x480, 0, 0],
    [0xd, 7, 1, 0x400, 0x680, 0, 0],
    [0xd, 9, 1, 8, 0xa80, 0, 0],
    [0xd, 11, 1, 0x10, 0, 1, 0],
    [0xd, 12, 1, 0x18, 0, 1, 0],
    [0xd, 17, 1, 0x40, 0xac0, 2, 0],
    [0xd, 18, 1, 0x2000, 0xb00, 6, 0],
    [0x12, 0, 1, 3, 1, 0, 0x241f],
    [0x1f, 0, 1, 1, 2, 0x100, 5],
    [0x1f, 1, 1, 4, 16, 0x201, 5],
    [0x80000000, 0, 0, 0x80000008],
    [0x80000001, 0, 0, 0, 0, 0x121, 0x2c100800],
    [0x80000002, 0, 0, word('Inte'), word('l(R)'), word(' Xeo'), word('n(R)')],
    [0x80000003, 0, 0, word(' Tes'), word('t\0\0\0'), 0, 0],
    [0x80000004, 0, 0],
    [0x80000007, 0, 0, 0, 0, 0, 0x100],
    [0x80000008, 0, 0, 0x3034, 0x200, 0, 0],
    [0x40000000, 0, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d],
    [0x40000001, 0, 0, 0x01007efb],
  ] as Row[]
).map(entry);

export const raw = (entries: readonly CpuidEntry[]): Uint8Array => encodeCpuid(entries);
