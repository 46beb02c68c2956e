import { readdirSync, readlinkSync } from 'node:fs';
import { expect, test } from 'vitest';
import { createCode } from '../support/code.js';

/** Descriptors of VMs and vCPUs that this process has. */
function descriptors(): string[] {
  const links = readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      // The directory's own, which is closed again.
      return [];
    }
  });
  return links.filter((link) => link.startsWith('anon_inode:kvm-v')).toSorted();
}

test('one VM is kept for KVM to stay switched on, from the second machine on, and no other', async () => {
  const seen: string[][] = [];
  for (let i = 0; i < 4; i++) {
    const vm = await createCode([]);
    await vm.close();
    seen.push(descriptors());
  }
  const kept = ['anon_inode:kvm-vcpu:0', 'anon_inode:kvm-vm'];
  expect(seen).toEqual([[], kept, kept, kept]);
});
