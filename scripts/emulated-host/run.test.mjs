// What run.mjs promises, shown by running it: `node --test scripts/emulated-host/run.test.mjs`.
// About a minute; boots eight machines, two at a time.

import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { REPOSITORY } from './cache.mjs';
import { ensureKernels } from './kernels.mjs';
import { ensureCommands } from './packages.mjs';

const SCRIPT = fileURLToPath(new URL('run.mjs', import.meta.url));

let directory;
before(() => {
  // Not within the time limits of the tests.
  ensureCommands(['qemu-system-x86_64'], () => {});
  ensureKernels();
  directory = mkdtempSync(join(tmpdir(), 'kvmsnap-selftest-'));
});
after(() => rmSync(directory, { recursive: true, force: true }));

function start(args) {
  const child = spawn(process.execPath, [SCRIPT, '--log-dir', directory, ...args]);
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => {
      output[name] += text;
    });
  }
  const ended = new Promise((resolve) => {
    child.once('close', (status, signal) => resolve({ status, signal, ...output }));
  });
  const saw = (text) =>
    new Promise((resolve) => {
      child.stdout.on('data', () => output.stdout.includes(text) && resolve());
    });
  return { child, ended, saw };
}

const run = (...args) => start(args).ended;
const shell = (...commands) => ['--', 'sh', '-c', commands.join('\n')];

/** Ids of processes whose command line has `pattern`; zombies have none. */
function processesWith(pattern) {
  const { stdout } = spawnSync('pgrep', ['-f', pattern], { encoding: 'utf8' });
  return stdout.split('\n').filter(Boolean);
}

describe('run.mjs', { concurrency: 2 }, () => {
  test('gives a job /dev/kvm with hardware semantics, Node, its files, and passes on what it says', async () => {
    const share = mkdtempSync(join(directory, 'share,'));
    const result = await run(
      ...['--timeout', '120', '--share', share, '--env', "SAYS=it's $HOME"],
      ...shell(
        'set -e',
        'grep -qw svm /proc/cpuinfo && [ "$(cat /sys/module/kvm_amd/parameters/npt)" = Y ]',
        "node -e \"require('fs').closeSync(require('fs').openSync('/dev/kvm', 'r+'))\"",
        'pwd && touch package.json /tmp/x /var/tmp/x "$HOME/x"',
        '[ -s "$KVMSNAP_GUEST_VMLINUX" ] && [ -s "$KVMSNAP_GUEST_BZIMAGE" ]',
        'echo "$SAYS" > "$KVMSNAP_SHARE/file"',
        'echo complaint > /dev/stderr',
        'exit 7',
      ),
    );
    assert.equal(result.status, 7, result.stderr);
    assert.equal(result.stdout, `${REPOSITORY}\n`);
    assert.match(result.stderr, /^complaint$/m);
    assert.equal(readFileSync(join(share, 'file'), 'utf8'), "it's $HOME\n");
  });

  test('its processor is interrupted each second, should it have lost its timer', async () => {
    const count = "awk '/ttyS0/ { print $2 }' /proc/interrupts";
    const result = await run('--timeout', '120', ...shell(count, 'sleep 8', count));
    const [before, after] = result.stdout.trim().split('\n').map(Number);
    assert.ok(after - before >= 4, `from ${before} to ${after}`);
  });

  test('what a job writes into the repository is gone', async () => {
    const result = await run('--timeout', '120', ...shell('touch written-by-selftest && ls'));
    assert.match(result.stdout, /^written-by-selftest$/m);
    assert.equal(existsSync(join(REPOSITORY, 'written-by-selftest')), false);
  });

  test('passes on a great deal of output whole', async () => {
    const result = await run('--timeout', '120', ...shell('seq 1000000'));
    assert.equal(result.status, 0);
    assert.equal(result.stdout.length, 6_888_896);
    assert.match(result.stdout, /\n999999\n1000000\n$/);
  });

  test('runs shards side by side; the status is that of the one that failed', async () => {
    const job = shell('echo "shard $KVMSNAP_SHARD"; [ $KVMSNAP_SHARD = 1/2 ] || exit 9');
    const result = await run('--timeout', '120', '--shards', '2', ...job);
    assert.equal(result.status, 9);
    const lines = result.stdout.trim().split('\n').sort();
    assert.deepEqual(lines, ['[1/2] shard 1/2', '[2/2] shard 2/2']);
  });

  test('reports a panic with the kernel log', async () => {
    const job = shell('echo before; sleep 1; echo c > /proc/sysrq-trigger; sleep 100');
    const result = await run('--timeout', '120', ...job);
    assert.equal(result.status, 125);
    assert.equal(result.stdout, 'before\n');
    assert.match(result.stderr, /died before the job ended: Kernel panic.*sysrq triggered crash/);
    assert.match(result.stderr, /Call Trace/);
    const log = /whole serial log: (.*)/.exec(result.stderr)[1];
    assert.match(readFileSync(log, 'utf8'), /sysrq triggered crash/);
  });

  test('reports a hang with what each process was waiting for', async () => {
    const result = await run('--timeout', '30', ...shell('echo before; sleep 1000; :'));
    assert.equal(result.status, 124);
    assert.equal(result.stdout, 'before\n');
    assert.match(result.stderr, /still running after 30 s/);
    assert.match(result.stderr, /\d+ S sleep +.*nanosleep/);
  });

  test('a process that the job leaves behind does not keep it', async () => {
    const result = await run('--timeout', '120', ...shell('sleep 1000 & exit 3'));
    assert.equal(result.status, 3);
    assert.match(result.stderr, /left processes behind/);
  });

  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGKILL', null],
  ]) {
    test(`QEMU ends with the script on ${signal}`, async () => {
      const mark = `kvmsnap-selftest-${process.pid}-${signal}`;
      const share = mkdtempSync(join(directory, `${mark}-`));
      const job = start(['--timeout', '120', '--share', share, ...shell('echo up; sleep 1000')]);
      await job.saw('up');
      assert.notDeepEqual(processesWith(`qemu-system-x86_64.*${mark}`), []);
      job.child.kill(signal);
      assert.equal((await job.ended).status, status);
      // The kernel takes a moment to take down 3 GiB.
      const deadline = Date.now() + 10_000;
      while (processesWith(`qemu-system-x86_64.*${mark}`).length > 0) {
        assert.ok(Date.now() < deadline, 'QEMU is still there');
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    });
  }
});
