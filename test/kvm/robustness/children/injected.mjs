// Changes of state while the n-th call of a kind fails (inject.c): as before, or poisoned, and a reset heals it.
import { openSync, readSync, writeSync } from 'node:fs';

const k = await import('../../../../dist/index.js');
const fd = openSync(process.env.INJECT, 'r+');
const arm = (kind, n) => {
  const b = Buffer.alloc(8);
  b.writeInt32LE(n, 4);
  b.writeInt32LE(0, 0);
  writeSync(fd, b, 0, 8, 0);
  const c = Buffer.alloc(4);
  c.writeInt32LE(kind);
  writeSync(fd, c, 0, 4, 0);
};
const left = () => {
  const b = Buffer.alloc(4);
  readSync(fd, b, 0, 4, 4);
  return b.readInt32LE();
};
const COUNT = Uint8Array.from([0x48, 0xff, 0x04, 0x25, 0, 0, 0x20, 0, 0xeb, 0xf6]);
const look = async (vm) =>
  JSON.stringify(await vm.vcpus[0].getRegs(), (_, v) =>
    typeof v === 'bigint' ? v.toString(16) : v,
  ) + Buffer.from(vm.memory.read(0x200000n, 4096)).toString('base64');
let bad = 0,
  failed = 0,
  total = 0;
for (const ring of [3])
  for (const irqchip of [false])
    for (const kind of [1, 2, 3])
      for (const op of ['freeze', 'save', 'load', 'reset', 'resetTo', 'pool']) {
        for (let n = 1; n <= (op === 'pool' ? 8 : 120); n++) {
          const vm = await k.Vm.create({
            bare: { image: COUNT, format: 'flat', loadAddress: 0x100000n, mode: 'long', ring },
            memory: k.MiB(8),
            irqchip,
          });
          const snap = await vm.snapshot();
          const at = await look(vm);
          const state = await vm.saveState();
          const m = await snap.restore();
          let pool;
          if (op === 'pool') {
            pool = await k.Pool.create(snap, { size: 1, max: 1 });
          }
          await m.start();
          await new Promise((r) => setTimeout(r, 1));
          await m.pause();
          const before = await look(m);
          arm(kind, n);
          let error;
          try {
            if (op === 'freeze') (await m.snapshot()).close();
            if (op === 'save') await m.saveState();
            if (op === 'load') await m.loadState(state);
            if (op === 'reset') await m.reset();
            if (op === 'resetTo') await m.reset(snap);
            if (op === 'pool') {
              const p = await pool.get();
              await p.start();
              await p.close();
              const q = await pool.get();
              arm(0, 0);
              if ((await look(q)) !== at) {
                bad++;
                console.log('BAD pool', ring, irqchip, kind, n);
              }
              await q.close();
            }
          } catch (e) {
            error = e;
          }
          const fired = left() <= 0;
          arm(0, 0);
          total++;
          if (error) {
            failed++;
            if (!error.code) {
              bad++;
              console.log('NO CODE', op, kind, n, error);
            }
            if (op !== 'pool') {
              const same = m.status === 'paused' && (await look(m)) === before;
              if (m.status !== 'poisoned' && !same) {
                bad++;
                console.log('BAD', op, ring, irqchip, kind, n, m.status, error.message);
              }
              await m.reset(snap);
              if ((await look(m)) !== at || m.status !== 'paused') {
                bad++;
                console.log('NOT HEALED', op, kind, n);
              }
            }
          }
          if (pool) await pool.close();
          snap.close();
          await m.close();
          await vm.close();
          if (!fired) break;
        }
      }
console.log(JSON.stringify({ total, failed, bad }));
process.exit(bad ? 1 : 0);
