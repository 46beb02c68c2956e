/** What this host's KVM is, asked once a process. */
import { release } from 'node:os';
import { hostFacts } from '../cpu/host-facts.js';
import type { NativeHost } from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import type { HostFacts } from '../snapshot/config.js';

let cached: NativeHost | undefined;

/** `ERR_NO_KVM`, `ERR_ADDON`. A failure is not remembered: the next call tries again. */
export function kvmHost(): NativeHost {
  cached ??= nativeBinding().host();
  return cached;
}

/** The value of KVM_CHECK_EXTENSION; 0 for one that is absent or unknown. */
export function capability(name: string): number {
  return kvmHost().capabilities[name] ?? 0;
}

let facts: HostFacts | undefined;

/** Facts that a snapshot records about the host it was taken on. */
export function snapshotHostFacts(): HostFacts {
  if (facts === undefined) {
    const host = kvmHost();
    const { vendor, family, model, stepping, features } = hostFacts(
      host.supportedCpuid,
      host.tscKhz,
    );
    facts = {
      cpu: { vendor, family, model, stepping, features },
      tscKhz: host.tscKhz,
      kernel: release(),
      kvm: { apiVersion: host.apiVersion, capabilities: host.capabilities },
    };
  }
  return facts;
}
