/** What tells a clone from the machine it was made of. */
import { randomBytes } from 'node:crypto';
import { requireArgument } from '../errors.js';
import type { NativeClock, NativeMachine, PageRun } from '../native/binding.js';

/**
 * How a machine made from a snapshot differs from all others of that snapshot; docs/identity.md. With
 * everything kept they are twins: the next random number of one is that of the other.
 */
export interface IdentityOptions {
  /**
   * `new`: the VM generation ID becomes a random one and the guest is told, so that it seeds its random
   * number generator anew before it runs on. `keep`: it stays the snapshot's; **dangerous** for more than
   * one machine. Default for a fork, a restore and a pool's machine: `new` if the machine has the device
   * (`VmOptions.generationId`); asked for by name without it: `ERR_INVALID_ARGUMENT`. Default for a
   * reset, which goes back to the very instant: `keep`.
   */
  generation?: 'new' | 'keep';
  /**
   * `keep` (default): the guest's clocks go on from where they stood. `host`: kvmclock and every TSC are
   * moved on by the time that has passed since, as the host's clock has it. `ERR_STATE` for a snapshot of
   * a release that did not note when it was. The CMOS clock shows the host's time either way.
   */
  clock?: 'host' | 'keep';
}

/** Where a machine's VM generation ID lies, and what says that it has changed. */
export interface GenerationIdPlace {
  /** Guest physical address of its 16 bytes, a multiple of 8, in RAM. */
  gpa: bigint;
  /** Input of the IOAPIC (0 to 23) that gets an edge. Default: none, the guest looks by itself. */
  gsi?: number;
}

export const GENERATION_ID_SIZE = 16;

/** What is to be done. */
export interface Identity {
  generation: 'new' | 'keep';
  clock: NativeClock;
}

/** With defaults filled in. `ERR_INVALID_ARGUMENT`. */
export function identityOf(
  options: IdentityOptions | undefined,
  usual: Identity['generation'],
  place: GenerationIdPlace | undefined,
): Identity {
  const { generation = place ? usual : 'keep', clock = 'keep' } = options ?? {};
  requireArgument(
    generation === 'new' || generation === 'keep',
    'identity.generation must be new or keep',
  );
  requireArgument(clock === 'host' || clock === 'keep', 'identity.clock must be host or keep');
  requireArgument(
    generation === 'keep' || place !== undefined,
    'the machine has no VM generation ID to make anew: create it with generationId',
  );
  return { generation, clock };
}

/** The first ID of a new machine. Its guest has not started, and is told nothing. */
export function writeGeneration(native: NativeMachine, { gpa }: GenerationIdPlace): void {
  native.writeMemory(gpa, randomBytes(GENERATION_ID_SIZE));
}

/** The pages that hold it. */
export function pagesOfGeneration({ gpa }: GenerationIdPlace): PageRun[] {
  const offset = gpa % 4096n;
  return [{ gpa: gpa - offset, count: offset + BigInt(GENERATION_ID_SIZE) > 4096n ? 2 : 1 }];
}

/** For a standing machine: another ID, if wanted. Its guest hears of it as soon as it runs. */
export function renewGeneration(
  native: NativeMachine,
  { generation }: Identity,
  place: GenerationIdPlace | undefined,
): void {
  if (generation === 'keep' || place === undefined) return;
  writeGeneration(native, place);
  if (place.gsi === undefined) return;
  native.setIrqLine(place.gsi, true);
  native.setIrqLine(place.gsi, false);
}
