#!/usr/bin/env node
// Runs every test tier where it can run, and ends with the count of all tests.
//
//   node scripts/test/all.mjs
//
// `unit` and `kvm` run here. `linux` runs here if kernels boot under this machine's KVM; else it
// runs, and `kvm` a second time, with hardware semantics, in the emulated host (docs/testing.md).

import { add, listFailures, NONE, summary } from './counts.mjs';
import { planLinuxTier } from './linux-tier.mjs';
import { whyNoKvm } from './machine.mjs';
import { runHere } from './run.mjs';

const say = (text) => process.stderr.write(`test: ${text}\n`);

let total = NONE;
const warnings = [];

async function step(name, run) {
  say(`== ${name}`);
  const started = Date.now();
  const counts = await run();
  say(`== ${name}: ${summary(counts)} in ${Math.round((Date.now() - started) / 1000)} s`);
  total = add(total, counts);
}

await step('unit', () => runHere(['unit']));

const noKvm = whyNoKvm();
if (noKvm) warnings.push(`tier kvm did not run on this machine itself: ${noKvm}`);
else await step('kvm, on this machine', () => runHere(['kvm']));

const linux = planLinuxTier(say, ['kvm']);
if (linux.reason) warnings.push(linux.reason);
await step(linux.name, linux.run);

for (const warning of warnings) say(`WARNING: ${warning}`);
process.stdout.write(`${listFailures(total)}${summary(total)}\n`);
process.exitCode = total.failed === 0 && total.passed > 0 ? 0 : 1;
