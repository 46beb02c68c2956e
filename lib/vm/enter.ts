/** Putting a new machine where its guest begins. */
import type { BootPlan } from '../boot/index.js';
import { encodeRegs, encodeSregs } from '../cpu/registers.js';
import { KvmsnapError } from '../errors.js';
import type { NativeMachine } from '../native/binding.js';
import {
  type GenerationIdPlace,
  type Identity,
  pagesOfGeneration,
  renewGeneration,
} from './identity.js';

/** At a guest's first instruction. */
export async function enterBoot(native: NativeMachine, { writes, entry }: BootPlan): Promise<void> {
  for (const { gpa, data } of writes) native.writeMemory(gpa, data);
  const sregs = await native.getVcpu(0, 'sregs2');
  await native.setVcpu(0, 'sregs2', encodeSregs(entry.sregs, sregs));
  const regs = await native.getVcpu(0, 'regs');
  await native.setVcpu(0, 'regs', encodeRegs(entry.regs, regs));
}

/** At a snapshot's instant, for a machine whose memory is still to come. `ERR_POISONED` when it failed. */
export async function enterSnapshot(
  native: NativeMachine,
  identity: Identity,
  place: GenerationIdPlace | undefined,
): Promise<void> {
  await native.enterState();
  if (place && identity.generation === 'new') await native.pageIn(pagesOfGeneration(place)).done;
  renewGeneration(native, identity, place);
  // KVM itself may not mind that a page did not come.
  if (native.status === 'poisoned') throw new KvmsnapError('ERR_POISONED', 'the machine failed');
}
