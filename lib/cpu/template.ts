/** CPU templates: a guest CPUID narrowed so that its snapshots can move to lesser hosts. */
import { requireArgument } from '../errors.js';
import { type CpuidEntry, type CpuidRegister, findLeaf } from './cpuid-entries.js';
import { withDependents } from './feature-table.js';
import { alignXsave, clearFeature } from './xcr0.js';

/** Bits of one register to take away. */
export interface CpuidClear {
  leaf: number;
  /** Default 0. */
  subleaf?: number;
  register: CpuidRegister;
  /** 32-bit mask. */
  bits: number;
}

/** A template only takes away. */
export interface CpuTemplate {
  clear?: readonly CpuidClear[];
  /** Names of /proc/cpuinfo to take away, with all that need them: `avx512f`. */
  features?: readonly string[];
}

const REGISTERS: readonly string[] = ['eax', 'ebx', 'ecx', 'edx'];

/**
 * Copies `entries` without the bits that the template clears; leaf 0xD follows. A bit or leaf that
 * is not there is no error: the same template serves several hosts. ERR_INVALID_ARGUMENT for an
 * unknown feature name or a malformed mask.
 */
export function applyTemplate(entries: readonly CpuidEntry[], template: CpuTemplate): CpuidEntry[] {
  const narrowed = entries.map((entry) => ({ ...entry }));
  for (const { leaf, subleaf = 0, register, bits } of template.clear ?? []) {
    requireArgument(
      REGISTERS.includes(register),
      `register must be one of ${REGISTERS.join(', ')}`,
    );
    for (const [name, value] of Object.entries({ leaf, subleaf, bits })) {
      const fits = Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
      requireArgument(fits, `${name} of a CPU template must be an integer from 0 to 0xffffffff`);
    }
    const entry = findLeaf(narrowed, leaf, subleaf);
    if (entry) entry[register] = (entry[register] & ~bits) >>> 0;
  }
  for (const name of template.features ?? []) {
    for (const dependent of withDependents(name)) clearFeature(narrowed, dependent);
  }
  return alignXsave(narrowed, entries);
}
