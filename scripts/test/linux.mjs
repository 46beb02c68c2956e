#!/usr/bin/env node
// Runs tier `linux` here where kernels boot under this machine's KVM, else in the emulated host.
//
//   node scripts/test/linux.mjs

import { listFailures, summary } from './counts.mjs';
import { planLinuxTier } from './linux-tier.mjs';

const say = (text) => process.stderr.write(`test: ${text}\n`);

const plan = planLinuxTier(say);
const counts = await plan.run();
if (plan.reason) say(`WARNING: ${plan.reason}`);
process.stdout.write(`${listFailures(counts)}${summary(counts)}\n`);
process.exitCode = counts.failed === 0 ? 0 : 1;
