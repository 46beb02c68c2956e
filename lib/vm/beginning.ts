/** How machines come to be: made, restored or taken from a pool. */
import type { NativeMachine } from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import { cancellable, throwIfAborted } from './abort.js';
import { enterBoot, enterSnapshot } from './enter.js';
import { MachineEvents } from './events.js';
import { type IdentityOptions, identityOf, renewGeneration, writeGeneration } from './identity.js';
import { planMachine, type VmOptions } from './options.js';
import { PageServer, type PagingPlan } from './paging.js';
import { machineAt, type Point, sharePoint } from './point.js';
import { inTurn } from './turns.js';

/** What a machine object begins with. */
export interface Beginning {
  native: NativeMachine;
  config: Point['config'];
  events: MachineEvents;
  /** What it was made from. The image is the machine's own handle. */
  origin?: Point;
  /** Ends this ownership of the native machine, if that is a pool's. */
  giveBack?: (native: NativeMachine) => Promise<void>;
}

/** With its guest loaded, and not yet started. */
export async function beginNew(options: VmOptions): Promise<Beginning> {
  const { signal } = options;
  throwIfAborted(signal);
  const { config, boot, generationId } = await planMachine(options);
  throwIfAborted(signal);
  const events = new MachineEvents();
  const native = await inTurn(() => nativeBinding().createMachine(config, events));
  try {
    throwIfAborted(signal);
    if (boot) await enterBoot(native, config.cpuid.length, boot);
    if (generationId) writeGeneration(native, generationId);
  } catch (error) {
    await native.close();
    throw error;
  }
  const { irqchip, devices } = config;
  const vcpus = config.cpuid.length;
  const place = generationId ? { generationId } : {};
  return { native, config: { irqchip, devices, vcpus, ...place }, events };
}

/** As it was at that instant, paused; with `paging`, memory is still to come. */
export async function beginAt(
  point: Point,
  options?: IdentityOptions,
  paging?: PagingPlan,
  signal?: AbortSignal,
): Promise<Beginning> {
  const { config, stopped } = point;
  const identity = identityOf(options, 'new', config.generationId);
  const events = new MachineEvents();
  events.stops.begin(0, stopped);
  if (paging) events.pageServer = new PageServer(paging);
  // Before anything is waited for: the snapshot may be closed meanwhile.
  const origin = sharePoint(point);
  try {
    const native = await machineAt(origin, events, identity.clock, paging?.native, signal);
    if (paging) await enterOnDemand();
    else renewGeneration(native, identity, config.generationId);
    return { native, config, events, origin };

    /** The state that memory on demand goes with: KVM may touch pages for it. */
    async function enterOnDemand(): Promise<void> {
      events.pageServer?.serve(native);
      try {
        // A page may never come; to close the machine ends every wait for one.
        const done = enterSnapshot(native, identity, config.generationId);
        await cancellable(signal, { done, cancel: () => void native.close() });
      } catch (error) {
        const stop = native.status === 'poisoned' ? await events.stops.wait() : undefined;
        await native.close();
        throwIfAborted(signal);
        throw stop?.error ?? error;
      }
    }
  } catch (error) {
    origin.image.close();
    throw error;
  }
}

/**
 * A pool's machine, which stands at that instant in its life number `life`. It goes to `giveBack` instead
 * of being closed.
 */
export function beginFromPool(
  native: NativeMachine,
  point: Point,
  life: number,
  giveBack: (native: NativeMachine) => Promise<void>,
): Beginning {
  const events = new MachineEvents();
  events.stops.begin(life, point.stopped);
  native.events = events;
  return { native, config: point.config, events, origin: sharePoint(point), giveBack };
}
