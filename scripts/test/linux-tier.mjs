// Where tier `linux` runs.

import { prepareEmulatedHost, prepareKernels, whyNoLinux } from './machine.mjs';
import { runEmulated, runHere } from './run.mjs';

/**
 * Here, if kernels boot under this machine's KVM; else in the emulated host, together with the tiers
 * `alongside`. Where neither is possible its tests skip themselves, are counted, and `reason` says why.
 */
export function planLinuxTier(log, alongside = []) {
  const here = (name) => ({ name, run: () => runHere(['linux']) });
  const noLinux = whyNoLinux();
  if (!noLinux) {
    const noKernels = prepareKernels(log);
    if (noKernels) log(`no kernels for tier linux: ${noKernels}`);
    return here('linux, on this machine');
  }
  const noEmulation = prepareEmulatedHost(log);
  if (noEmulation) {
    const reason = `tier linux is SKIPPED: ${noLinux}; and there is no emulated host: ${noEmulation}`;
    return { ...here('linux, skipped'), reason };
  }
  log(`tier linux goes to the emulated host: ${noLinux}`);
  const tiers = [...alongside, 'linux'];
  return {
    name: `${tiers.join(' and ')}, in the emulated host`,
    run: () => runEmulated(tiers),
  };
}
