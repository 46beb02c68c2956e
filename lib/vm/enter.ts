/** Putting a new machine where its guest begins. */
import type { BootPlan, FirmwareState } from '../boot/index.js';
import { encodePic } from '../cpu/irqchip.js';
import { encodeLapic } from '../cpu/lapic.js';
import { encodeMsrs } from '../cpu/msrs.js';
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
export async function enterBoot(
  native: NativeMachine,
  vcpus: number,
  { writes, entry, firmware }: BootPlan,
): Promise<void> {
  for (const { gpa, data } of writes) native.writeMemory(gpa, data);
  if (firmware) await enterFirmware(native, vcpus, firmware);
  const sregs = await native.getVcpu(0, 'sregs2');
  await native.setVcpu(0, 'sregs2', encodeSregs(entry.sregs, sregs));
  const regs = await native.getVcpu(0, 'regs');
  await native.setVcpu(0, 'regs', encodeRegs(entry.regs, regs));
}

/** As firmware leaves a machine with an irqchip. */
async function enterFirmware(
  native: NativeMachine,
  vcpus: number,
  { msrs, lapic, pics }: FirmwareState,
): Promise<void> {
  const entries = encodeMsrs(msrs);
  for (let vcpu = 0; vcpu < vcpus; vcpu++) await native.setVcpu(vcpu, 'msrs', entries);
  await native.setVcpu(0, 'lapic', encodeLapic(lapic, await native.getVcpu(0, 'lapic')));
  for (const pic of pics) await native.setIrqchip(encodePic(pic));
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
