/** What machine it is, as a snapshot says it. */
import type { NativeMachine } from '../native/binding.js';
import type { MachineDescription } from '../snapshot/config.js';
import type { GenerationIdPlace } from './identity.js';
import type { Point } from './point.js';

export function describeMachine(
  native: NativeMachine,
  config: Point['config'],
): MachineDescription {
  const regions = native.regions();
  const { vcpus, irqchip, devices, generationId } = config;
  return {
    vcpus,
    memory: { regions: regions.map(({ slot, gpa, size }) => ({ slot, gpa: Number(gpa), size })) },
    irqchip,
    ...(generationId ? { generationId: { ...generationId, gpa: Number(generationId.gpa) } } : {}),
    devices: { ...devices },
  };
}

/** The way back. `vcpus`: of the state that goes with it. */
export function configOf(
  { irqchip, devices, generationId }: MachineDescription,
  vcpus: number,
): Point['config'] {
  return {
    irqchip,
    devices,
    vcpus,
    ...(generationId ? { generationId: placeOf(generationId) } : {}),
  };
}

function placeOf({ gpa, gsi }: NonNullable<MachineDescription['generationId']>): GenerationIdPlace {
  return { gpa: BigInt(gpa), ...(gsi === undefined ? {} : { gsi }) };
}
