// exits.mjs HOW: a process that ends with machines running. It says `ready` as it starts to end.
import { mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../../../../lib/index.js';
import { nativeBinding } from '../../../../lib/native/load.js';
import { bare, READ_PORT, SPIN } from './machines.mjs';

async function start(code, options) {
  const vm = await bare(code, options);
  await vm.start();
  return vm;
}

const machines = [
  await start(SPIN, { irqchip: true, vcpus: 2 }),
  await start(SPIN),
  await bare(SPIN),
  await start(READ_PORT),
];
machines[3].claimPorts({ base: 0x1000, read: () => new Promise(() => {}) });
// Its guest waits for a page that never comes.
const store = mkdtempSync(join(tmpdir(), 'kvmsnap-exits-'));
const snapshot = await machines[2].snapshot({ store });
const demanding = await snapshot.restore({
  paging: { source: { read: () => new Promise(() => {}) } },
});
rmSync(store, { recursive: true });
await demanding.start();
machines.push(demanding);

const digest = () => nativeBinding().digestFile(openSync('/dev/zero', 'r'), MiB(1), () => {});

console.log('ready');
switch (process.argv[2]) {
  case 'exit':
    process.exit(5);
    break;
  case 'exit while hashing':
    digest();
    digest();
    setTimeout(() => process.exit(5), 20);
    break;
  case 'exit while creating':
    for (let i = 0; i < 8; i++) void bare(SPIN, { irqchip: true, vcpus: 2 });
    setImmediate(() => process.exit(5));
    break;
  case 'exit while closing':
    for (const vm of machines) void vm.close();
    process.exit(5);
    break;
  case 'unref':
    process.exitCode = 5;
    for (const vm of machines) vm.unref();
    break;
  case 'throw':
    setImmediate(() => {
      throw new Error('uncaught on purpose');
    });
    break;
  case 'reject':
    void Promise.reject(new Error('uncaught on purpose'));
    break;
  default:
    throw new Error('no such end');
}
