/** A machine's instant inside this process: what new machines are made from, and old ones go back to. */
import type {
  NativeClock,
  NativeEvents,
  NativeImage,
  NativeMachine,
  NativeMachineConfig,
  NativePaging,
  NativePreparedMachine,
} from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import type { GenerationIdPlace } from './identity.js';
import { inTurn } from './turns.js';

export interface Point {
  /** The machine; without state, which `machine` has. */
  config: Pick<NativeMachineConfig, 'irqchip' | 'devices'> & {
    vcpus: number;
    generationId?: GenerationIdPlace;
  };
  machine: NativePreparedMachine;
  image: NativeImage;
}

/** What has such an instant: a snapshot, in memory or in a store. */
export interface HasPoint {
  /** @internal The image stays the snapshot's: `share()` it to keep it. */
  point(): Promise<Point>;
}

/**
 * A machine at that instant. Its image must stay open meanwhile. `ERR_SNAPSHOT_CORRUPT` when a file of it
 * was cut short, `ERR_IOCTL`, `ERR_SYSTEM`.
 */
export async function machineAt(
  { machine, image }: Point,
  events: NativeEvents,
  clock: NativeClock,
  paging?: NativePaging,
): Promise<NativeMachine> {
  // Memory that comes on demand is mapped from nowhere.
  if (paging === undefined) await image.prepare()?.done;
  return inTurn(() => nativeBinding().createMachine(machine, events, image, clock, paging));
}
