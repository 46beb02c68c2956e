import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { GiB, MiB } from '../../../lib/units.js';
import { HANG_MS, installedMemory } from '../support/host.js';
import {
  bootGuest,
  createGuest,
  setWord,
  stopOf,
  tracked,
  until,
  untilReady,
  word,
} from '../support/machines.js';
import { scratch } from '../support/scratch.js';

const MEMORY = GiB(3.5);
const CHUNK = MiB(64);
/** A guest that fills or verifies all of it hangs if it takes so long. */
const PASS_MS = 4 * HANG_MS;

/** A digest of all guest memory, by slot. */
function memoryDigest(vm: Vm): string {
  const hash = createHash('sha256');
  for (const { gpa, size } of vm.memory.slots()) {
    hash.update(`${gpa}+${size}`);
    for (let at = 0; at < size; at += CHUNK) {
      hash.update(vm.memory.read(gpa + BigInt(at), Math.min(CHUNK, size - at)));
    }
  }
  return hash.digest('hex');
}

// A little of what is installed is the kernel's own.
const tooSmall = installedMemory() < GiB(7.5);
if (tooSmall) {
  console.warn(
    `SKIPPED: the snapshot of a guest with 3.5 GiB needs 8 GiB, here are ${Math.floor(installedMemory() / GiB(1))}`,
  );
}

describe.skipIf(tooSmall)('a guest with 3.5 GiB, some of it above the hole', () => {
  it('keeps a pattern over all memory, bit for bit', { timeout: 3 * PASS_MS }, async () => {
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const vm = await createGuest('pattern', { memory: MEMORY });
    await vm.start();
    await untilReady(vm, 'pattern', PASS_MS);
    using snapshot = await vm.snapshot({ store, then: 'pause' });
    expect(snapshot.stats!.pages).toBe(MEMORY / 4096);
    const digest = memoryDigest(vm);
    const checksum = word(vm, GUEST_ABI.CHECKSUM);
    const top = vm.memory.read(GUEST_ABI.HIGH_START + BigInt(GiB(0.5) - 4096), 4096);
    expect(new Set(top).size).toBeGreaterThan(100);
    // So that at no time there is more than one machine and its files.
    await vm.close();

    const copy = tracked(await snapshot.restore());
    expect(memoryDigest(copy)).toBe(digest);
    setWord(copy, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
    await copy.resume();
    const verified = () => word(copy, GUEST_ABI.COUNT) === 2n;
    await until('the guest verifies all memory', verified, PASS_MS);
    expect(word(copy, GUEST_ABI.ERRORS)).toBe(0n);
    expect(word(copy, GUEST_ABI.CHECKSUM)).toBe(checksum);
    setWord(copy, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_EXIT);
    expect(await stopOf(copy)).toEqual({ reason: 'exit-port', code: GUEST_ABI.EXIT_OK });
  });
});

describe('the guest’s check', () => {
  it('finds one wrong bit', async () => {
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const vm = await bootGuest('pattern', { memory: MiB(48) });
    using snapshot = await vm.snapshot({ store, then: 'stop' });
    const copy = tracked(await snapshot.restore());
    const at = BigInt(MiB(40));
    copy.memory.write(at, Buffer.from([copy.memory.read(at, 1)[0]! ^ 0x10]));
    setWord(copy, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
    await copy.resume();
    await until('the guest verifies all memory', () => word(copy, GUEST_ABI.COUNT) === 2n);
    expect(word(copy, GUEST_ABI.ERRORS)).toBe(1n);
    expect(word(copy, GUEST_ABI.EXTRA)).toBe(at);
  });
});
