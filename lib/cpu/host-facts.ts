/** Facts about the host's CPU, as snapshots record them. */
import { createHash } from 'node:crypto';
import { brandOf, cpuVendor } from './cpuid.js';
import { decodeCpuid, leafRegister } from './cpuid-entries.js';
import { presentFeatures } from './features.js';

export interface CpuFacts {
  /** `GenuineIntel`, `AuthenticAMD`, … */
  vendor: string;
  /** Empty where KVM does not give it. */
  brand: string;
  family: number;
  model: number;
  stepping: number;
  /** Features KVM supports, by name. */
  features: string[];
  /** SHA-256 of `features`, in hexadecimal: tells at a glance whether two hosts offer the same. */
  featureHash: string;
  /** TSC frequency in kHz. */
  tscKhz: number;
}

/**
 * Facts from KVM_GET_SUPPORTED_CPUID and the TSC frequency in kHz. Family and model are combined
 * with their extended fields (Intel SDM volume 2, CPUID leaf 1; AMD APM volume 3, E.3.2).
 */
export function hostFacts(supportedCpuid: Uint8Array, tscKhz: number): CpuFacts {
  const entries = decodeCpuid(supportedCpuid);
  const signature = leafRegister(entries, 1, 0, 'eax');
  const baseFamily = (signature >>> 8) & 0xf;
  const baseModel = (signature >>> 4) & 0xf;
  const family = baseFamily === 0xf ? baseFamily + ((signature >>> 20) & 0xff) : baseFamily;
  const extendsModel = baseFamily === 0xf || baseFamily === 6;
  const features = presentFeatures(entries);
  return {
    vendor: cpuVendor(entries),
    brand: brandOf(entries),
    family,
    model: extendsModel ? (((signature >>> 16) & 0xf) << 4) | baseModel : baseModel,
    stepping: signature & 0xf,
    features,
    featureHash: createHash('sha256').update(features.join('\n')).digest('hex'),
    tscKhz,
  };
}
