// The command line of run.mjs.

import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

export const USAGE = `Usage: node scripts/emulated-host/run.mjs [options] -- COMMAND [ARGUMENT...]

Runs COMMAND on an emulated machine with hardware-style KVM (QEMU in software emulation with AMD SVM,
a Debian kernel, kvm_amd), which sees this machine's files read-only and this repository and
/tmp as throw-away copies. Works with or without /dev/kvm here.

  --shards N           N machines side by side, each with KVMSNAP_SHARD=i/N (default 1)
  --timeout SECONDS    kill a machine that runs longer (default 1800)
  --memory MIB         RAM of each machine (default 3072)
  --share DIR          a directory the job may write; same path inside, and in KVMSNAP_SHARE
  --env NAME[=VALUE]   an environment variable for the job; may be repeated
  --log-dir DIR        where serial logs are kept (default .cache/emulated-host/logs)
  --help

Exit status: that of COMMAND (of the first shard that failed); 124 after --timeout; 125 if the
emulated machine failed (panic, no boot); 130 after Ctrl-C; 2 for a wrong command line.`;

/** A mistake of the caller: printed without a stack, exit status 2. */
export class UsageError extends Error {}

function integer(name, text, least, most) {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new UsageError(`--${name} takes a number from ${least} to ${most}, not "${text}"`);
  }
  return value;
}

function shareDirectory(path) {
  const share = resolve(path);
  if (!statSync(share, { throwIfNoEntry: false })?.isDirectory()) {
    throw new UsageError(`--share ${path}: there is no such directory`);
  }
  return share;
}

function environmentOf(pairs) {
  const environment = {};
  for (const pair of pairs) {
    const [, name, value] = /^([A-Za-z_]\w*)(?:=(.*))?$/s.exec(pair) ?? [];
    if (name === undefined) throw new UsageError(`--env takes NAME or NAME=VALUE, not "${pair}"`);
    const effective = value ?? process.env[name];
    if (effective !== undefined) environment[name] = effective;
  }
  return environment;
}

/** @returns `undefined` if only help was asked for. */
export function parseOptions(argv) {
  let parsed;
  try {
    parsed = parseArgs({
      args: argv,
      allowPositionals: true,
      options: {
        shards: { type: 'string', default: '1' },
        timeout: { type: 'string', default: '1800' },
        memory: { type: 'string', default: '3072' },
        share: { type: 'string' },
        env: { type: 'string', multiple: true, default: [] },
        'log-dir': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    });
  } catch (error) {
    throw new UsageError(error.message);
  }
  const { values, positionals: command } = parsed;
  if (values.help) return undefined;
  if (command.length === 0) throw new UsageError('a command is needed after --');
  return {
    shards: integer('shards', values.shards, 1, 64),
    timeoutMs: integer('timeout', values.timeout, 1, 86_400) * 1000,
    memoryMiB: integer('memory', values.memory, 1024, 262_144),
    share: values.share === undefined ? undefined : shareDirectory(values.share),
    environment: environmentOf(values.env),
    logDirectory: values['log-dir'] === undefined ? undefined : resolve(values['log-dir']),
    command,
  };
}
