#!/usr/bin/env node
// Runs tiers `kvm` and `linux` in the emulated host.
//
//   node scripts/test/emulated.mjs [vitest arguments, such as a file's name]

import { listFailures, summary } from './counts.mjs';
import { runEmulated } from './run.mjs';

const counts = await runEmulated(['kvm', 'linux'], process.argv.slice(2));
process.stdout.write(`${listFailures(counts)}${summary(counts)}\n`);
process.exitCode = counts.failed === 0 ? 0 : 1;
