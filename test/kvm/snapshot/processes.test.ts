import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Snapshot, SnapshotStore } from '../../../lib/index.js';
import { compile, removeCompiled } from '../robustness/compiled.js';
import { firstBreak, Sent } from '../support/lines.js';
import { bootGuest, tracked, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { leftovers } from '../support/stores.js';
import { writerFaults } from '../support/writer.js';

const CHILDREN = 'test/kvm/snapshot/children';
let compiled: string;
beforeAll(() => {
  compiled = compile();
  cpSync(join(import.meta.dirname, 'children'), join(compiled, CHILDREN), { recursive: true });
});
afterAll(() => removeCompiled(compiled));

function start(name: string, args: string[]) {
  const child = spawn(process.execPath, [join(compiled, CHILDREN, `${name}.mjs`), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
  });
  const closed = once(child, 'close');
  return {
    kill: () => child.kill('SIGKILL'),
    closed,
    output: () => output,
    async says(text: string) {
      while (!output.includes(text)) {
        await Promise.race([once(child.stdout, 'data'), closed]);
        if (child.exitCode !== null) throw new Error(`the child ended: ${output}`);
      }
    },
  };
}

describe('kill -9 of a process in the middle of a save', () => {
  it('leaves each snapshot whole or absent: 15 processes', async () => {
    const path = `${scratch()}/store`;
    await SnapshotStore.open(path, { create: true });
    const reported: string[] = [];
    for (let round = 0; round < 15; round++) {
      const child = start('save', [path, `p${round}`]);
      await child.says(round % 3 === 0 ? 'ready\n' : `ready\n${round % 3 === 1 ? '0' : '0\n1'}`);
      await sleep(Math.random() * 60);
      child.kill();
      await child.closed;
      const commits = child.output().split('\n').length - 2;
      for (let i = 0; i < commits; i++) reported.push(`p${round}-${i}`);

      const store = await SnapshotStore.open(path);
      // One killed while it commits leaves its lock, which the next writer breaks.
      expect(leftovers(path).filter((name) => name !== 'lock')).toEqual([]);
      expect(await store.tags()).toEqual(expect.arrayContaining(reported));
    }
    expect(reported.length).toBeGreaterThan(5);
    const store = await SnapshotStore.open(path);
    for (const tag of await store.tags()) {
      await store.verify(tag);
      using snapshot = await Snapshot.open(store, tag);
      const copy = tracked(await snapshot.restore());
      expect(writerFaults(copy, 2000)).toEqual([]);
      await copy.resume();
      await untilCounted(copy, 1n, 'writer');
      await copy.close();
    }
  });
});

describe('another process', () => {
  it('goes on with the very next number, three times from one snapshot', async () => {
    const path = `${scratch()}/store`;
    const vm = await bootGuest('counter', { regs: { rsi: 2000n } });
    const sent = new Sent(vm);
    await sent.lines(5);
    (await vm.snapshot({ store: path, tag: 'mid', then: 'pause' })).close();
    await sent.settle();
    for (let copy = 0; copy < 3; copy++) {
      const child = start('restore', [path, 'mid', '5']);
      const [code] = await child.closed;
      expect(code).toBe(0);
      const text = JSON.parse(child.output()) as string;
      expect(text.split('\n').length).toBeGreaterThan(5);
      expect(firstBreak(sent.text + text)).toBeUndefined();
    }
  });
});
