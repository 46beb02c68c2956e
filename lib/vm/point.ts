/** A machine's instant inside this process: what new machines are made from, and old ones go back to. */
import type { NativeImage, NativeMachineConfig, NativePreparedMachine } from '../native/binding.js';
import type { GenerationIdPlace } from './identity.js';

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
