// A chain of 50 increments opened and restored, and the same instant flattened. Each increment has 100 or
// 1000 pages, scattered over all of memory: nearly every one is an extent of its own.
import { join } from 'node:path';
import { Snapshot, SnapshotStore } from '../../../dist/index.js';
import { createMachine, fillMemory } from '../machines.mjs';

const LINKS = 50;
/** Of an increment, by the figures' names. */
const PAGES = { '': 100, '1000_': 1000 };
/** A prime: pages that follow each other in a link are far apart, and in 256 MiB none comes twice. */
const STRIDE = 5003;
const PAGE = 4096;

const namesOf = (kind) => [`restore_chain_${kind}ready`, `restore_flat_${kind}ready`];

const chains = new Map();

async function makeChain({ memory, scratch }, kind) {
  const directory = join(scratch, `chain-${kind}`);
  const store = await SnapshotStore.open(directory, { create: true, durable: false });
  const pages = PAGES[kind];
  const vm = await createMachine('least', memory);
  fillMemory(vm, memory);
  let tip = await vm.snapshot({ store });
  for (let link = 0; link < LINKS; link++) {
    for (let i = 0; i < pages; i++) {
      const page = ((link * pages + i) * STRIDE) % (memory / PAGE);
      vm.memory.write(BigInt(page * PAGE), Buffer.alloc(PAGE, link + 1));
    }
    const next = await vm.snapshot({ store, parent: tip });
    tip.close();
    tip = next;
  }
  await vm.close();
  const flat = await tip.flatten();
  tip.close();
  flat.close();
  const [chain, flattened] = namesOf(kind);
  return { store, digests: Object.entries({ [chain]: tip.digest, [flattened]: flat.digest }) };
}

/** The same for all rounds. */
function chainOf(context, kind) {
  const key = `${kind} ${context.scratch}`;
  const made = chains.get(key) ?? makeChain(context, kind);
  chains.set(key, made);
  return made;
}

async function measureKind(context, kind) {
  const { store, digests } = await chainOf(context, kind);
  for (let i = 0; i < context.slowRuns; i++) {
    for (const [name, digest] of digests) {
      const start = context.now();
      const snapshot = await Snapshot.open(store, digest);
      const vm = await snapshot.restore();
      context.record(name, context.now() - start);
      await vm.close();
      snapshot.close();
      // What closing a snapshot leaves to do is not the next one's.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

export async function measure(context) {
  for (const kind of Object.keys(PAGES)) {
    if (namesOf(kind).some(context.wanted)) await measureKind(context, kind);
  }
}
