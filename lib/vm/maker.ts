/**
 * What snapshots know of the class `Vm`. A machine makes snapshots and a snapshot makes machines. Modules may
 * import each other, but what one of a circle needs while it is loaded depends on which was asked for first.
 */
import type { IdentityOptions } from './identity.js';
import type { PagingPlan } from './paging.js';
import type { Point } from './point.js';
import type { Vm } from './vm.js';

type MakeMachine = (
  point: Point,
  options?: IdentityOptions,
  paging?: PagingPlan,
  signal?: AbortSignal,
) => Promise<Vm>;

let make: MakeMachine = () => {
  throw new Error('no machine can be made before lib/vm/vm.ts is loaded: import lib/index.ts');
};

/** `Vm` says how, as it is loaded. */
export function setMaker(how: MakeMachine): void {
  make = how;
}

/** A machine as it was at that instant, paused; with `paging`, memory is still to come. */
export const makeMachine: MakeMachine = (...instant) => make(...instant);
