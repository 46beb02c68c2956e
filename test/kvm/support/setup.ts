/** Runs before each file of the tier: a machine without KVM skips all of it, and says so. */
import { beforeEach } from 'vitest';
import { whyNoKvm } from './host.js';

const reason = whyNoKvm();
if (reason !== undefined) {
  console.warn(`SKIPPED: tier kvm: ${reason}`);
  beforeEach((context) => context.skip(reason));
}
