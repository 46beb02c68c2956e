/**
 * The CPUID that a guest sees, made from what KVM supports (KVM_GET_SUPPORTED_CPUID): the host's
 * features, less what a snapshot cannot carry, with the guest's own topology.
 */
import { requireArgument } from '../errors.js';
import {
  type CpuidEntry,
  decodeCpuid,
  encodeCpuid,
  findLeaf,
  leafRegister,
} from './cpuid-entries.js';
import { withDependents } from './feature-table.js';
import { applyTemplate, type CpuTemplate } from './template.js';
import { MAX_VCPUS, withTopology } from './topology.js';
import { alignXsave, clearFeature, setFeature } from './xcr0.js';

export interface GuestCpuidOptions {
  /** KVM_GET_SUPPORTED_CPUID: `kvm_cpuid_entry2[]`. */
  supported: Uint8Array;
  /** How many vCPUs the machine has, 1 to 255. */
  vcpus: number;
  /** Whether the machine has the in-kernel irqchip, and so a local APIC. */
  irqchip: boolean;
  /** KVM_CAP_TSC_DEADLINE_TIMER. */
  tscDeadlineTimer: boolean;
  /** The host's own brand string, 48 bytes as leaves 0x80000002 to 0x80000004 have them. */
  brand?: Uint8Array;
  /** Bits to take away. */
  template?: CpuTemplate;
}

/** What needs a local APIC, itself or to send and take its interrupts. */
const NEEDS_APIC: readonly string[] = [
  'apic',
  'x2apic',
  'tsc_deadline_timer',
  'extapic',
  'arat',
  'kvm_async_pf',
  'kvm_pv_eoi',
  'kvm_pv_unhalt',
  'kvm_pv_tlb_flush',
  'kvm_async_pf_vmexit',
  'kvm_pv_send_ipi',
  'kvm_pv_sched_yield',
  'kvm_async_pf_int',
  'kvm_msi_ext_dest_id',
];

/**
 * What KVM offers and a machine here cannot have: nested virtualisation (its state is in no
 * section of a snapshot), shadow stacks (nor is SSP, which is no MSR), SGX (there is no EPC
 * memory), SEV (no encrypted machines).
 */
const NEVER: readonly string[] = ['vmx', 'svm', 'shstk', 'sgx', 'sme', 'sev', 'sev_es', 'sev_snp'];

/** Leaves that would describe what {@link NEVER} clears, or the host's own topology (0x80000026). */
const ZEROED_LEAVES: ReadonlySet<number> = new Set([0x12, 0x8000000a, 0x8000001f, 0x80000026]);

/** 12 ASCII characters of EBX, EDX, ECX of leaf 0, such as `GenuineIntel`. */
export function cpuVendor(entries: readonly CpuidEntry[]): string {
  const leaf = findLeaf(entries, 0);
  return leaf ? registersText([leaf.ebx, leaf.edx, leaf.ecx]) : '';
}

/** Whether the CPU follows AMD's manual. */
export function isAmd(entries: readonly CpuidEntry[]): boolean {
  return ['AuthenticAMD', 'HygonGenuine'].includes(cpuVendor(entries));
}

/** The characters in registers, little-endian, up to the first NUL. */
export function registersText(registers: readonly number[]): string {
  const text = Buffer.from(Uint32Array.from(registers).buffer).toString('latin1');
  return text.split('\0', 1)[0]!.trim();
}

const BRAND_LEAVES = [0x80000002, 0x80000003, 0x80000004] as const;

/** The brand string, such as `AMD EPYC 7B13`; empty where there is none. */
export function brandOf(entries: readonly CpuidEntry[]): string {
  const registers = BRAND_LEAVES.flatMap((leaf) =>
    (['eax', 'ebx', 'ecx', 'edx'] as const).map((name) => leafRegister(entries, leaf, 0, name)),
  );
  return registersText(registers);
}

/**
 * CPUID entries of vCPU `vcpu`. What holds, beyond the options:
 * - No bit is set that KVM does not support, but for HTT and CmpLegacy (topology), the hypervisor
 *   bit, and TSC deadline mode, which has a capability of its own.
 * - The invariant TSC bit is kept where the host has it: kernels that do not see it distrust the
 *   TSC. A restore checks the TSC frequency instead.
 * - KVM's signature and features (0x40000000, 0x40000001) are kept.
 * - The brand string is the host's, which KVM does not give.
 * - The template is applied before the topology, which it cannot change.
 *
 * ERR_INVALID_ARGUMENT for a vCPU number or count out of range, or malformed entries.
 */
export function guestCpuid(options: GuestCpuidOptions, vcpu: number): CpuidEntry[] {
  const { vcpus, irqchip, tscDeadlineTimer, template = {} } = options;
  requireArgument(
    Number.isInteger(vcpus) && vcpus >= 1 && vcpus <= MAX_VCPUS,
    `vcpus must be an integer from 1 to ${MAX_VCPUS}`,
  );
  requireArgument(
    Number.isInteger(vcpu) && vcpu >= 0 && vcpu < vcpus,
    `vcpu must be an integer from 0 to ${vcpus - 1}`,
  );
  const supported = decodeCpuid(options.supported);
  requireArgument(findLeaf(supported, 1), 'the supported CPUID has no leaf 1');

  const entries = supported
    .filter((entry) => !ZEROED_LEAVES.has(entry.function))
    .map((entry) => ({ ...entry }));
  for (const name of NEVER.flatMap(withDependents)) clearFeature(entries, name);
  setFeature(entries, 'hypervisor');
  if (irqchip && tscDeadlineTimer) setFeature(entries, 'tsc_deadline_timer');
  else clearFeature(entries, 'tsc_deadline_timer');
  if (!irqchip) for (const name of NEEDS_APIC) clearFeature(entries, name);
  clearApicAlias(entries, irqchip);
  if (options.brand) setBrand(entries, options.brand);

  const aligned = alignXsave(entries, supported);
  return withTopology(applyTemplate(aligned, template), vcpu, vcpus, isAmd(supported));
}

/** Where KVM gives no brand string. */
function setBrand(entries: CpuidEntry[], brand: Uint8Array): void {
  if (brandOf(entries) !== '') return;
  const words = new DataView(brand.buffer, brand.byteOffset, BRAND_LEAVES.length * 16);
  BRAND_LEAVES.forEach((leaf, index) => {
    const [eax, ebx, ecx, edx] = [0, 4, 8, 12].map((at) => words.getUint32(index * 16 + at, true));
    const entry = findLeaf(entries, leaf);
    const registers = { eax: eax!, ebx: ebx!, ecx: ecx!, edx: edx! };
    if (entry) Object.assign(entry, registers);
    else entries.push({ function: leaf, index: 0, flags: 0, ...registers });
  });
}

/** AMD repeats the APIC bit of leaf 1 in leaf 0x80000001 EDX, without a name of its own. */
function clearApicAlias(entries: readonly CpuidEntry[], irqchip: boolean): void {
  const leaf = findLeaf(entries, 0x80000001);
  if (leaf && !irqchip) leaf.edx = (leaf.edx & ~(1 << 9)) >>> 0;
}

/** `kvm_cpuid_entry2[]` of each vCPU, for `NativeMachineConfig.cpuid`. */
export function guestCpuids(options: GuestCpuidOptions): Uint8Array[] {
  return Array.from({ length: options.vcpus }, (_, vcpu) => encodeCpuid(guestCpuid(options, vcpu)));
}
