// What becomes of objects that JavaScript has forgotten. Prints what did not go as it must.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeBinding } from '../../../../lib/native/load.js';
import { bare, EXIT, SPIN } from './machines.mjs';
import { settled, usage } from './usage.mjs';

const store = mkdtempSync(join(tmpdir(), 'kvmsnap-forgotten-'));
const gone = new Set();
const registry = new FinalizationRegistry((name) => gone.add(name));
const problems = [];

async function collected(name) {
  for (let tries = 0; tries < 200; tries++) {
    globalThis.gc();
    await sleep(5);
    if (gone.has(name)) return true;
  }
  return false;
}

/** `make` gives what is to be forgotten, and leaves nothing that refers to it. */
async function forget(name, make) {
  await (async () => registry.register(await make(), name))();
  if (!(await collected(name))) problems.push(`${name} was not collected`);
}

const stopped = async () => {
  const vm = await bare(EXIT);
  await vm.start();
  await vm.wait();
  return vm;
};
const paused = async () => {
  const vm = await bare(SPIN);
  await vm.start();
  await vm.pause();
  return vm;
};
const withClaims = async () => {
  const vm = await bare(EXIT);
  vm.claimPorts({ base: 0x1000, length: 4, read: () => vm.memory.read(0n, 1)[0] });
  vm.claimMmio({ base: 0x10000000n, length: 4096, write: () => void vm.pause() });
  vm.console.on('data', () => vm.status);
  await vm.start();
  await vm.wait();
  return vm;
};
const snapshotOf = async (vm) => {
  const snapshot = await vm.snapshot({ store, tag: 'it' });
  await vm.close();
  await (await snapshot.restore()).close();
  return snapshot;
};

// Warm: what is kept for the process's life.
for (const make of [stopped, paused, withClaims]) await (await make()).close();
(await snapshotOf(await paused())).close();
const before = await settled();

await forget('created', () => bare(SPIN));
await forget('paused', paused);
await forget('stopped', stopped);
await forget('killed', async () => {
  const vm = await bare(SPIN);
  await vm.start();
  await vm.kill();
  return vm;
});
await forget('with claims', withClaims);
await forget('snapshot', async () => snapshotOf(await paused()));
const onDemand = async (source) => {
  const vm = await bare(SPIN);
  const snapshot = await vm.snapshot({ store });
  await vm.close();
  const twin = await snapshot.restore({ paging: { source } });
  snapshot.close();
  twin.pageIn({ gpa: 0n, length: 4096 }).catch(() => undefined);
  await twin.start();
  return twin;
};
// With a page that never comes: its guest and a fetch wait for it, until it is killed.
await forget('on demand', async () => {
  const twin = await onDemand({ read: () => new Promise(() => {}) });
  await twin.kill();
  return twin;
});
// A source that knows its machine, which is paused.
await forget('on demand from itself', async () => {
  const source = { read: (_gpa, length) => new Uint8Array(length) };
  const twin = await onDemand(source);
  source.twin = twin;
  await twin.pageIn();
  await twin.pause();
  return twin;
});
await forget('image', async () =>
  nativeBinding().imageFromFiles([], [{ gpa: 0n, size: 4096 }], new Float64Array()),
);

// A running machine is nobody's to forget: it runs until it stops, and goes then.
await (async () => {
  const vm = await bare([0xb9, 0, 0, 8, 0, 0xff, 0xc9, 0x75, 0xfc, ...EXIT]);
  registry.register(vm, 'running');
  void vm.wait().then(() => gone.add('its end'));
  await vm.start();
})();
for (let tries = 0; tries < 10; tries++) {
  globalThis.gc();
  await sleep(2);
}
if (gone.has('running') && !gone.has('its end')) problems.push('a running machine was collected');
for (let tries = 0; tries < 4000 && !gone.has('its end'); tries++) await sleep(5);
if (!gone.has('its end')) problems.push('a forgotten machine did not run on to its end');
if (!(await collected('running'))) problems.push('a machine that had run was not collected');

const after = await settled(before);
if (after.fds > before.fds) problems.push(`${after.fds - before.fds} descriptors are left`);
if (after.threads > before.threads)
  problems.push(`${after.threads - before.threads} threads are left`);
rmSync(store, { recursive: true });
console.log(JSON.stringify({ problems, after: usage() }));
