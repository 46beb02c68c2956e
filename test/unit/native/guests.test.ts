import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { planBare } from '../../../lib/boot/bare/plan.js';
import { KvmsnapError } from '../../../lib/errors.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import {
  GUESTS,
  type GuestInfo,
  type GuestName,
  guestNames,
  guestPath,
  readGuest,
} from '../../../lib/native/guests.js';
import { GiB, MiB } from '../../../lib/units.js';

const sources = fileURLToPath(new URL('../../../native/guest/', import.meta.url));

describe('the contract between guests and host', () => {
  it('has the same names and numbers in abi.h and in guest-abi.ts', () => {
    const header = readFileSync(`${sources}abi.h`, 'utf8');
    const defines = [...header.matchAll(/^#define GUEST_(\w+) (\w+)/gm)];
    const fromHeader = Object.fromEntries(defines.map(([, name, value]) => [name, BigInt(value!)]));
    const fromScript = Object.fromEntries(
      Object.entries(GUEST_ABI).map(([name, value]) => [name, BigInt(value)]),
    );
    expect(fromScript).toEqual(fromHeader);
  });

  it('lists every source of native/guest, and no other guest', () => {
    const files = readdirSync(sources).filter((file) => file.endsWith('.S'));
    expect(guestNames()).toEqual(files.map((file) => file.slice(0, -2)).sort());
  });

  it('documents every guest in the index', () => {
    const index = readFileSync(`${sources}README.md`, 'utf8');
    for (const name of guestNames()) expect(index).toContain(`| \`${name}\` |`);
  });
});

describe('readGuest', () => {
  it.each(guestNames())('reads %s as built', (name) => {
    expect(existsSync(guestPath(name)), 'run `npm run build:guests` first').toBe(true);
    const bytes = readGuest(name);
    if (GUESTS[name].format === 'elf') {
      // e_ident: magic, ELFCLASS64, ELFDATA2LSB; e_machine: EM_X86_64.
      expect([...bytes.subarray(0, 6)]).toEqual([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
      expect(bytes[18]).toBe(62);
    } else {
      expect(bytes.length).toBe(8192);
    }
  });

  it('refuses a name that is no guest, and says which there are', () => {
    expect(() => readGuest('../../package' as GuestName)).toThrowError(
      expect.objectContaining({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringContaining('counter, dirtier, escape, hostile'),
      }) as Error,
    );
    expect(() => readGuest('toString' as GuestName)).toThrowError(KvmsnapError);
  });
});

describe('guests and planBare', () => {
  const starts = guestNames().flatMap((name) =>
    GUESTS[name].rings.map((ring) => [name, ring] as const),
  );

  it.each(starts)('has room for %s in ring %i, in the least and in large memory', (name, ring) => {
    const info: GuestInfo = GUESTS[name];
    for (const memory of [MiB(4), GiB(3.5), GiB(16)]) {
      const plan = planBare({
        image: readGuest(name),
        mode: info.mode,
        ring,
        memory,
        ...(info.loadAddress === undefined ? {} : { loadAddress: info.loadAddress }),
      });
      const entry = info.format === 'flat' ? GUEST_ABI.REAL_TEXT : GUEST_ABI.TEXT;
      expect(plan.entry.regs.rip).toBe(entry);
      expect(plan.entry.regs.rdi).toBe(BigInt(memory));
    }
  });
});
