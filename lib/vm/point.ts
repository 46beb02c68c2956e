/** A machine's instant inside this process: what new machines are made from, and old ones go back to. */
import { isDeepStrictEqual } from 'node:util';
import { KvmsnapError } from '../errors.js';
import type {
  NativeClock,
  NativeEvents,
  NativeImage,
  NativeMachine,
  NativeMachineConfig,
  NativePaging,
  NativePreparedMachine,
  RawStop,
} from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import { cancellable, throwIfAborted } from './abort.js';
import {
  type GenerationIdPlace,
  type IdentityOptions,
  identityOf,
  renewGeneration,
} from './identity.js';
import type { Stops } from './stops.js';
import { inTurn } from './turns.js';

export interface Point {
  /** The machine; without state, which `machine` has. */
  config: Pick<NativeMachineConfig, 'irqchip' | 'devices'> & {
    vcpus: number;
    generationId?: GenerationIdPlace;
  };
  machine: NativePreparedMachine;
  image: NativeImage;
  /** The guest had ended the machine: so it is in all that are made from this. */
  stopped?: RawStop;
}

/** What has such an instant: a snapshot, in memory or in a store. */
export interface HasPoint {
  /** @internal With an image of its own, which whoever called closes. `ERR_CLOSED`. */
  point(): Promise<Point>;
}

/**
 * A machine at that instant. Its image must stay open meanwhile. `ERR_SNAPSHOT_CORRUPT` when a file of it
 * was cut short, `ERR_ABORTED`, `ERR_IOCTL`, `ERR_SYSTEM`.
 */
export async function machineAt(
  { machine, image }: Point,
  events: NativeEvents,
  clock: NativeClock,
  paging?: NativePaging,
  signal?: AbortSignal,
): Promise<NativeMachine> {
  // Memory that comes on demand is mapped from nowhere.
  const preparing = paging === undefined ? image.prepare() : undefined;
  if (preparing) await cancellable(signal, preparing);
  throwIfAborted(signal);
  return inTurn(() => nativeBinding().createMachine(machine, events, image, clock, paging));
}

/** The same instant with an image of its own, to be closed by itself. `ERR_CLOSED` if that was closed. */
export function sharePoint(point: Point): Point {
  return { ...point, image: point.image.share() };
}

/**
 * Puts a machine, of that `config`, back to the instant that `pointNow` gives when it is the machine's turn.
 * `ERR_STATE` for one of another machine, `ERR_INVALID_ARGUMENT` (the identity).
 */
export async function goBackTo(
  pointNow: () => Point,
  {
    native,
    config: { generationId },
    stops,
  }: { native: NativeMachine; config: Point['config']; stops: Stops },
  options: IdentityOptions | undefined,
): Promise<void> {
  const identity = identityOf(options, 'keep', generationId);
  let stopped: RawStop | undefined;
  const life = await inTurn(() => {
    const point = pointNow();
    stopped = point.stopped;
    if (!isDeepStrictEqual(generationId, point.config.generationId)) {
      throw new KvmsnapError(
        'ERR_STATE',
        'the snapshot is of a machine with another VM generation ID: restore or fork it instead',
      );
    }
    return native.reset(point.machine, point.image, identity.clock);
  });
  stops.begin(life, stopped);
  renewGeneration(native, identity, generationId);
}
