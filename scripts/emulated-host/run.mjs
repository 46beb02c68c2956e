#!/usr/bin/env node
// Runs a command on an emulated machine with hardware-style KVM. `--help`, and docs/testing.md.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { CACHE, REPOSITORY } from './cache.mjs';
import { isMain } from './entry.mjs';
import { hostArchive, jobArchive } from './initramfs.mjs';
import { ensureKernels } from './kernels.mjs';
import { runMachine } from './machine.mjs';
import { parseOptions, USAGE, UsageError } from './options.mjs';
import { ensureCommands } from './packages.mjs';
import { EXIT_HOST_FAILED, exitStatusOf, failureReport, linePrefixer } from './report.mjs';

const KEPT_LOGS = 40;
const FORWARDED = ['CI', 'NO_COLOR', 'FORCE_COLOR'];

const say = (line) => process.stderr.write(`emulated-host: ${line}\n`);

function jobEnvironment({ environment, share, shards }, kernels, shard) {
  const forwarded = FORWARDED.filter((name) => process.env[name] !== undefined);
  return {
    ...Object.fromEntries(forwarded.map((name) => [name, process.env[name]])),
    PATH: `${dirname(process.execPath)}${delimiter}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    HOME: '/run/kvmsnap/home',
    USER: 'root',
    LANG: 'C.UTF-8',
    TMPDIR: '/var/tmp',
    XDG_RUNTIME_DIR: '/run/kvmsnap',
    KVMSNAP_EMULATED_HOST: '1',
    KVMSNAP_SHARD: `${shard}/${shards}`,
    ...(share === undefined ? {} : { KVMSNAP_SHARE: share }),
    KVMSNAP_GUEST_VMLINUX: '/run/kvmsnap/vmlinux',
    KVMSNAP_GUEST_BZIMAGE: '/run/kvmsnap/bzImage',
    KVMSNAP_GUEST_MODULES: kernels.guest.modules,
    ...environment,
  };
}

/** A path for the serial log of each shard; the oldest logs of earlier runs are removed. */
function serialLogs(directory, shards) {
  mkdirSync(directory, { recursive: true });
  const old = readdirSync(directory)
    .filter((name) => name.endsWith('.serial.log'))
    .sort();
  for (const name of old.slice(0, -KEPT_LOGS)) rmSync(join(directory, name), { force: true });
  const stamp = new Date().toISOString().replace(/[:.]/g, '-');
  return Array.from({ length: shards }, (_, index) =>
    join(directory, `${stamp}-${process.pid}-shard${index + 1}.serial.log`),
  );
}

async function runShard(options, kernels, { archive, runtime, serialLog, shard, signal }) {
  const name = options.shards === 1 ? '' : `[${shard}/${options.shards}] `;
  const stdout = name === '' ? process.stdout : linePrefixer(process.stdout, name);
  const stderr = name === '' ? process.stderr : linePrefixer(process.stderr, name);
  const initramfs = join(runtime, `initramfs-${shard}.cpio`);
  const job = jobArchive({
    repository: REPOSITORY,
    share: options.share,
    environment: jobEnvironment(options, kernels, shard),
    command: options.command,
    guest: kernels.guest,
  });
  writeFileSync(initramfs, Buffer.concat([archive, job]));
  const { memoryMiB, share, timeoutMs } = options;
  const result = await runMachine(
    { vmlinux: kernels.host.vmlinux, initramfs, memoryMiB, share, serialLog },
    { timeoutMs, signal },
    {
      stdout: (chunk) => stdout.write(chunk),
      stderr: (chunk) => stderr.write(chunk),
      ready: (ms) => say(`${name}up after ${(ms / 1000).toFixed(1)} s, serial log ${serialLog}`),
    },
  );
  if (name !== '') {
    stdout.end();
    stderr.end();
  }
  for (const line of failureReport(result, { serialLog, timeoutMs })) say(`${name}${line}`);
  if (result.leftBehind) {
    say(`${name}the job left processes behind that hold its output; they are in the serial log`);
  }
  const status = exitStatusOf(result);
  say(`${name}exit status ${status} after ${(result.totalMs / 1000).toFixed(1)} s`);
  return status;
}

export async function run(options, signal) {
  const log = (line) => say(line);
  ensureCommands(['qemu-system-x86_64'], log);
  const kernels = ensureKernels({ log });
  const archive = hostArchive(kernels);
  const logs = serialLogs(options.logDirectory ?? join(CACHE, 'logs'), options.shards);
  const runtime = mkdtempSync(join(tmpdir(), 'kvmsnap-job-'));
  try {
    const statuses = await Promise.all(
      logs.map((serialLog, index) =>
        runShard(options, kernels, { archive, runtime, serialLog, shard: index + 1, signal }),
      ),
    );
    return statuses.find((status) => status !== 0) ?? 0;
  } finally {
    rmSync(runtime, { recursive: true, force: true });
  }
}

async function main() {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(name, () => stop.abort());
  try {
    const options = parseOptions(process.argv.slice(2));
    if (options === undefined) {
      process.stdout.write(`${USAGE}\n`);
      return;
    }
    process.exitCode = await run(options, stop.signal);
  } catch (error) {
    if (error instanceof UsageError) {
      process.stderr.write(`${error.message}\n\n${USAGE}\n`);
      process.exitCode = 2;
    } else {
      say(error.message);
      process.exitCode = EXIT_HOST_FAILED;
    }
  }
}

if (isMain(import.meta.url)) await main();
