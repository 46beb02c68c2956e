/**
 * Machines that earlier releases saved, restored by this one: they are what they were, and run on. There is one
 * for each kind of KVM, since no host can restore both. The files are never written again: a change of
 * format adds another directory beside them.
 */
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Snapshot, SnapshotStore } from '../../../lib/index.js';
import { EMULATED_RING0 } from '../support/host.js';
import { Sent } from '../support/lines.js';
import { tracked } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { differences } from '../support/state.js';

const FIXTURES = join(import.meta.dirname, '../../fixtures');

/** Both are of the guest `counter`, and this is the number that it was about to send. */
const MACHINES = [
  { directory: 'golden-machines-v1', tag: 'pvm', next: 15 },
  { directory: 'golden-machines-v1', tag: 'svm', next: 19 },
];

/**
 * What the first release saved though the vCPU has no such register: KVM reads MCG_CTL as 0 where MCG_CAP has
 * no MCG_CTL_P (Intel SDM volume 3, 16.3.1.1), and its guest gets a #GP.
 */
const isNoRegister = ({ path, before }: { path: string; before?: unknown }): boolean =>
  path.endsWith('.msrs.IA32_MCG_CTL') && before === '0x0';

const isAmd = /AuthenticAMD/.test(readFileSync('/proc/cpuinfo', 'utf8'));
const kindHere = EMULATED_RING0 ? 'pvm' : isAmd ? 'svm' : 'vmx';

describe('a golden machine', () => {
  it.for(MACHINES)('$directory, $tag: runs on', async ({ directory, tag, next }, context) => {
    const path = join(scratch(), 'store');
    cpSync(join(FIXTURES, directory), path, { recursive: true });
    const store = await SnapshotStore.open(path);
    await store.verify(tag);
    using snapshot = await Snapshot.open(path, tag);
    const restored = snapshot.restore();
    if (tag !== kindHere || !isAmd) {
      // Both were saved on AMD's CPUs.
      const refused = await restored.then(tracked, ({ code }) => code);
      if (typeof refused === 'string') {
        expect(['ERR_SNAPSHOT_INCOMPATIBLE', 'ERR_MSR']).toContain(refused);
        context.skip(`${tag} cannot be restored on a host with ${kindHere}: ${refused}`);
      }
    }
    const vm = tracked(await restored);
    using saved = await store.load(tag);
    // What later releases save in addition has no value there.
    const lost = differences(saved.state, await vm.saveState());
    const had = lost.filter(({ before }) => before !== undefined);
    expect(had.filter((one) => !isNoRegister(one))).toEqual([]);
    const sent = new Sent(vm);
    await vm.resume();
    await sent.lines(3);
    expect(sent.text.split('\n').slice(0, 3)).toEqual([0, 1, 2].map((more) => `${next + more}`));
  });
});
