// What a worker is doing when it is ended. Each says `go` once it is under way, and never ends itself.
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../../../lib/index.js';
import { nativeBinding } from '../../../../lib/native/load.js';
import { bare, EXIT, READ_PORT, SPIN } from './machines.mjs';

const LARGE = MiB(192);

async function forever(step) {
  for (;;) await step();
}

/** A machine with `bytes` of content. */
async function filled(bytes) {
  const vm = await bare(SPIN, { memory: bytes });
  const block = Buffer.alloc(MiB(4), 0x5a);
  for (let at = MiB(4); at < bytes; at += block.length) vm.memory.write(BigInt(at), block);
  return vm;
}

/** By name: gets `go`, to be called when it may be ended, and a directory. */
export const OPERATIONS = {
  async create(go) {
    go();
    await forever(async () => (await bare(EXIT, { vcpus: 4 })).close());
  },
  async createMany(go) {
    go();
    await Promise.all(Array.from({ length: 20 }, () => bare(SPIN, { irqchip: true })));
    await forever(async () => bare(SPIN));
  },
  async close(go) {
    const machines = await Promise.all(
      Array.from({ length: 10 }, () => bare(SPIN, { irqchip: true })),
    );
    for (const vm of machines) await vm.start();
    go();
    await Promise.all(machines.map((vm) => vm.close()));
    await new Promise(() => {});
  },
  async running(go) {
    for (let i = 0; i < 5; i++) await (await bare(SPIN, { vcpus: 2 })).start();
    go();
    await new Promise(() => {});
  },
  async runningUnrefd(go) {
    const vm = await bare(SPIN);
    await vm.start();
    vm.unref();
    go();
  },
  async pause(go) {
    const vm = await bare(SPIN);
    go();
    await forever(async () => {
      await vm.start();
      await vm.pause();
    });
  },
  async snapshot(go, directory) {
    const vm = await filled(LARGE);
    await vm.start();
    go();
    await forever(async () => (await vm.snapshot({ store: join(directory, 's') })).close());
  },
  async restore(go, directory) {
    const vm = await bare(SPIN);
    const snapshot = await vm.snapshot({ store: join(directory, 's') });
    go();
    await forever(async () => {
      const twin = await snapshot.restore();
      await twin.start();
      await twin.close();
    });
  },
  /** Its guest waits for a page that is never given, and so does a fetch. */
  async onDemand(go, directory) {
    const vm = await bare(SPIN);
    const snapshot = await vm.snapshot({ store: join(directory, 's') });
    const source = { read: () => new Promise(() => go()) };
    const twin = await snapshot.restore({ paging: { source } });
    await twin.start();
    await twin.pageIn();
  },
  /** Pages come and go all the time, from JavaScript and from files. */
  async onDemandBusy(go, directory) {
    const vm = await filled(LARGE);
    const snapshot = await vm.snapshot({ store: join(directory, 's') });
    const source = { read: async (_gpa, length) => new Uint8Array(length) };
    go();
    await forever(async () => {
      for (const paging of [{ source }, {}]) {
        const twin = await snapshot.restore({ paging });
        await twin.start();
        await twin.pageIn();
        await twin.close();
      }
    });
  },
  async runVcpu(go) {
    const vm = await bare(SPIN);
    const running = vm.vcpus[0].run({ dispatch: true });
    go();
    await running;
  },
  async memory(go) {
    const vm = await bare(SPIN, { memory: LARGE });
    const block = Buffer.alloc(MiB(64));
    go();
    await forever(async () => {
      vm.memory.write(BigInt(MiB(64)), block);
      vm.memory.read(BigInt(MiB(64)), block.length);
      await new Promise(setImmediate);
    });
  },
  async claim(go) {
    const vm = await bare(READ_PORT);
    vm.claimPorts({
      base: 0x1000,
      read: () => {
        go();
        return new Promise(() => {});
      },
    });
    await vm.start();
    await new Promise(() => {});
  },
  async claimBusy(go) {
    const vm = await bare(READ_PORT);
    vm.claimPorts({ base: 0x1000, read: async () => 1 });
    await vm.start();
    go();
    await new Promise(() => {});
  },
  async imageWrite(go, directory) {
    const path = join(directory, 'part');
    writeFileSync(path, Buffer.alloc(LARGE, 0x5a));
    const source = openSync(path, 'r');
    const range = { gpa: 0n, size: LARGE };
    const image = nativeBinding().imageFromFiles(
      [source],
      [range],
      Float64Array.of(0, LARGE, 0, 0),
    );
    await forever(async () => {
      const fds = Array.from({ length: image.partCount(MiB(64)) }, () =>
        openSync(`${path}.copy`, 'w'),
      );
      await image.write(MiB(64), { fds, durable: false, progress: () => go() }).done;
      for (const fd of fds) closeSync(fd);
    });
  },
  async digest(go) {
    const fd = openSync('/dev/zero', 'r');
    nativeBinding().digestFile(fd, MiB(1), () => go());
    await new Promise(() => {});
  },
};

export const scratchIn = (parent) => mkdtempSync(join(parent, 'operation-'));
export const remove = (path) => rmSync(path, { recursive: true, force: true });
