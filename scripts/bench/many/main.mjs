// npm run bench:fanout, npm run bench:churn. See docs/benchmarks.md.
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { packageRoot } from '../../build/compile.mjs';
import { hostFacts, load } from '../host.mjs';
import { UsageError } from '../options.mjs';
import { availableMiB, formatSize } from '../sizes.mjs';
import { formatHost } from '../table.mjs';
import { parseManyOptions, USAGE } from './options.mjs';
import { formatChurn, formatFanout, leftBehind } from './report.mjs';
import { freeDescriptors } from './usage.mjs';

const KINDS = ['least', 'full'];
// Of the kernel's for a machine too: its page tables, KVM's structures. And descriptors.
const EACH_MIB = 1;
const EACH_FDS = 8;

function requireRoom({ what, memoryMiB, count }) {
  const machines = what === 'fanout' ? count : 0;
  const needed = memoryMiB + machines * EACH_MIB + 512;
  if (availableMiB() < needed) {
    throw new UsageError(`this needs ${needed} MiB of memory; ${availableMiB()} are available`);
  }
  if (freeDescriptors() < machines * EACH_FDS) {
    throw new UsageError(
      `${machines} machines may need ${machines * EACH_FDS} file descriptors: raise \`ulimit -n\``,
    );
  }
}

async function measure(options) {
  const memory = options.memoryMiB * 2 ** 20;
  if (options.what === 'fanout') {
    const { measureFanout } = await import('./fanout.mjs');
    const results = [];
    for (const kind of KINDS) results.push(await measureFanout(kind, { ...options, memory }));
    return { results, text: results.map(formatFanout).join('\n\n') };
  }
  const { measureChurn } = await import('./churn.mjs');
  const results = [];
  for (const kind of KINDS) results.push(...(await measureChurn(kind, { ...options, memory })));
  return { results, text: formatChurn(results) };
}

async function main(argv) {
  const options = parseManyOptions(argv);
  if (options === undefined) return console.log(USAGE);
  if (!existsSync(path.join(packageRoot, 'dist/index.js'))) {
    throw new UsageError('kvmsnap is not built: run `npm run build` first');
  }
  requireRoom(options);
  const before = load();
  process.stderr.write(`${options.what}, ${formatSize(options.memoryMiB)} ...\n`);
  const { results, text } = await measure(options);
  const host = hostFacts();
  const run = {
    memory_MiB: options.memoryMiB,
    load_before: before,
    load_after: load(),
    rounds: 1,
  };
  console.log(`${formatHost(host, run)}\n\n${text}`);
  if (options.json) {
    writeFileSync(options.json, `${JSON.stringify({ results, host, run }, null, 2)}\n`);
  }
  if (options.what === 'fanout' && results.some(leftBehind)) {
    console.error('bench: closed machines left descriptors or threads behind');
    process.exitCode = 1;
  }
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  console.error(error instanceof UsageError ? `bench: ${error.message}` : error);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
