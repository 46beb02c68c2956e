// A chain of 50 increments opened and restored, and the same instant flattened. Each increment has 100
// pages, scattered over all of memory: nearly every one is an extent of its own.
import { join } from 'node:path';
import { Snapshot, SnapshotStore } from '../../../dist/index.js';
import { createMachine, fillMemory } from '../machines.mjs';

const LINKS = 50;
const PAGES = 100;
/** A prime: pages that follow each other in a link are far apart, and none comes twice. */
const STRIDE = 5003;
const PAGE = 4096;

const chains = new Map();

async function makeChain({ memory, scratch }) {
  const store = await SnapshotStore.open(join(scratch, 'chain'), { create: true, durable: false });
  const vm = await createMachine('least', memory);
  fillMemory(vm, memory);
  let tip = await vm.snapshot({ store });
  for (let link = 0; link < LINKS; link++) {
    for (let i = 0; i < PAGES; i++) {
      const page = ((link * PAGES + i) * STRIDE) % (memory / PAGE);
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
  return { store, digests: { restore_chain_ready: tip.digest, restore_flat_ready: flat.digest } };
}

/** The same for all rounds. */
function chainOf(context) {
  const made = chains.get(context.scratch) ?? makeChain(context);
  chains.set(context.scratch, made);
  return made;
}

export async function measure(context) {
  const { store, digests } = await chainOf(context);
  for (let i = 0; i < context.slowRuns; i++) {
    for (const [name, digest] of Object.entries(digests)) {
      const start = context.now();
      const snapshot = await Snapshot.open(store, digest);
      const vm = await snapshot.restore();
      context.record(name, context.now() - start);
      await vm.close();
      snapshot.close();
      // What closing a snapshot leaves to do is not the next one's.
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
