// Running vitest, here or in the emulated host, and counting what came of it.

import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { add, countRun, NONE } from './counts.mjs';
import { guarded } from './guard.mjs';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const EMULATED_HOST = fileURLToPath(new URL('../emulated-host/run.mjs', import.meta.url));

/** One machine for each core of the smallest machine that runs the whole. */
const SHARDS = 2;
/** For the tests' guests, and for their snapshots, which are in memory too. */
const MEMORY_MIB = 4096;
const TIMEOUT_SECONDS = 2400;

const vitest = (tiers) => [
  ...['npx', '--no-install', 'vitest', 'run'],
  ...tiers.flatMap((tier) => ['--project', tier]),
  ...['--reporter=default', '--reporter=json', '--reporter=./scripts/test/journal.mjs'],
  '--passWithNoTests',
];

const options = (env) => ({ cwd: REPOSITORY, env: { ...process.env, ...env } });

/** Runs tiers on this machine. */
export function runHere(tiers) {
  return guarded(async (directory, run) => {
    const report = join(directory, 'report.json');
    const journal = join(directory, 'journal');
    const [command, ...args] = vitest(tiers);
    const env = { KVMSNAP_JOURNAL: journal };
    const status = await run(command, [...args, `--outputFile.json=${report}`], options(env));
    return countRun(report, status, journal);
  });
}

/** Runs tiers in emulated machines, their files split between them. */
export function runEmulated(tiers, filters = []) {
  return guarded(async (share, run) => {
    const job = [
      // biome-ignore lint/suspicious/noTemplateCurlyInString: for the shell there
      'KVMSNAP_JOURNAL="$KVMSNAP_SHARE/${KVMSNAP_SHARD%/*}.journal"',
      ...vitest(tiers),
      '--shard="$KVMSNAP_SHARD"',
      // biome-ignore lint/suspicious/noTemplateCurlyInString: for the shell there
      '--outputFile.json="$KVMSNAP_SHARE/${KVMSNAP_SHARD%/*}.json"',
      '"$@"',
    ].join(' ');
    const emulation = [
      EMULATED_HOST,
      ...['--shards', SHARDS, '--memory', MEMORY_MIB, '--timeout', TIMEOUT_SECONDS].map(String),
      ...['--share', share, '--', 'sh', '-c', job, 'sh', ...filters],
    ];
    const status = await run(process.execPath, emulation, options());
    const counts = Array.from({ length: SHARDS }, (_, index) =>
      countRun(join(share, `${index + 1}.json`), 0, join(share, `${index + 1}.journal`)),
    ).reduce(add, NONE);
    if (status === 0 || counts.failed > 0) return counts;
    const failures = [`the emulated host ended with status ${status}`];
    return { ...counts, failed: 1, failures };
  });
}
