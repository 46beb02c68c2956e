// lives.mjs reset|pool|fork COUNT: so many lives from one snapshot, each of which writes pages and a secret
// that the next must not find; samples on the way.
import { randomBytes } from 'node:crypto';
import { Pool } from '../../../../lib/index.js';
import { TOUCHED, touching } from './machines.mjs';
import { settled } from './usage.mjs';

const [kind, count] = [process.argv[2], Number(process.argv[3])];
const samples = [];
const FIRST = 0x200000;
const PAGES = 512;

const origin = await touching();
const clean = Buffer.from(origin.memory.read(BigInt(FIRST), PAGES * 4096));
const registers = JSON.stringify(await origin.vcpus[0].getRegs(), plain);
const snapshot = await origin.snapshot();
const pool = kind === 'pool' ? await Pool.create(snapshot, { size: 3, max: 3 }) : undefined;
let secret;
let at = 0;

function plain(_, value) {
  return typeof value === 'bigint' ? `${value}` : value;
}

function fail(what, life) {
  throw new Error(`${what} of life ${life} is not as it was: the one before wrote at ${at}`);
}

async function begin() {
  if (kind === 'pool') return pool.get();
  if (kind === 'fork') return (await snapshot.fork())[0];
  await origin.reset(snapshot);
  return origin;
}

async function live(vm, life) {
  const place = BigInt(FIRST + at);
  if (!vm.memory.read(place, 32).equals(clean.subarray(at, at + 32))) fail('memory', life);
  // All of it now and then: it takes as long as a life.
  if (life % 64 === 0) {
    if (!vm.memory.read(BigInt(FIRST), PAGES * 4096).equals(clean)) fail('all memory', life);
    if (JSON.stringify(await vm.vcpus[0].getRegs(), plain) !== registers) fail('register', life);
  }
  secret = randomBytes(32);
  at = (randomBytes(2).readUInt16LE() % PAGES) * 4096 + secret[0] * 8;
  vm.memory.write(BigInt(FIRST + at), secret);
  if (life % 4 === 0) await vm.vcpus[0].setRegs({ r9: secret.readBigUInt64LE() });
  const { kind: exit, port } = await vm.vcpus[0].run();
  if (exit !== 'io' || port !== 0xea) throw new Error(`the guest ended with ${exit} ${port}`);
  if (vm.memory.read(BigInt(FIRST), 8).readBigUInt64LE() !== BigInt(TOUCHED)) {
    throw new Error('the guest has not written');
  }
  if (vm !== origin) await vm.close();
}

const every = Math.ceil(count / 50);
const began = performance.now();
for (let life = 0; life < count; life++) {
  await live(await begin(), life);
  if ((life + 1) % every === 0) samples.push(await settled());
}
const seconds = (performance.now() - began) / 1000;
const made = pool?.stats.made;
await pool?.close();
await origin.close();
console.log(JSON.stringify({ samples, seconds, made }));
