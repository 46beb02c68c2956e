/**
 * Every raw section of a machine's state that the addon hands over, with its kernel struct, its
 * ioctls, and how to decode and encode it.
 */
import type { RawVmState, VcpuSection } from '../native/binding.js';
import { type CpuidEntry, decodeCpuid, encodeCpuid } from './cpuid-entries.js';
import * as events from './events.js';
import * as irqchip from './irqchip.js';
import * as lapic from './lapic.js';
import { decodeMsrs, encodeMsrs, type MsrEntry } from './msrs.js';
import * as registers from './registers.js';
import type { Patch } from './struct.js';
import { decodeXsave, encodeXsave, type Xsave, xsaveLayout } from './xsave.js';

export interface Section<T, P = Patch<T>> {
  /** The kernel's struct. */
  readonly struct: string;
  readonly ioctlGet: string;
  readonly ioctlSet: string;
  /**
   * Throws ERR_INVALID_ARGUMENT for a wrong length. `cpuid` is the vCPU's CPUID, which says where
   * XSAVE components lie; without it only x87, SSE and AVX are decoded.
   */
  decode(raw: Uint8Array, cpuid?: readonly CpuidEntry[]): T;
  /** Puts `patch` into a copy of `base` (default: zeros). Lists are given whole. */
  encode(patch: P, base?: Uint8Array, cpuid?: readonly CpuidEntry[]): Uint8Array;
}

/** A section whose ioctls are KVM_GET_`name` and KVM_SET_`name`. */
function section<T, P = Patch<T>>(
  structName: string,
  name: string,
  decode: Section<T, P>['decode'],
  encode: Section<T, P>['encode'],
): Section<T, P> {
  return {
    struct: structName,
    ioctlGet: `KVM_GET_${name}`,
    ioctlSet: `KVM_SET_${name}`,
    decode,
    encode,
  };
}

/** The sections of one vCPU, by their name in `RawVcpuState`. */
export const VCPU_SECTIONS = {
  cpuid2: section<CpuidEntry[], readonly CpuidEntry[]>(
    'kvm_cpuid_entry2[]',
    'CPUID2',
    decodeCpuid,
    encodeCpuid,
  ),
  regs: section('kvm_regs', 'REGS', registers.decodeRegs, registers.encodeRegs),
  sregs2: section('kvm_sregs2', 'SREGS2', registers.decodeSregs, registers.encodeSregs),
  xsave2: {
    struct: 'kvm_xsave',
    ioctlGet: 'KVM_GET_XSAVE2',
    ioctlSet: 'KVM_SET_XSAVE',
    decode: (raw, cpuid = []) => decodeXsave(raw, xsaveLayout(cpuid)),
    encode: (patch, base, cpuid = []) => encodeXsave(patch, base, xsaveLayout(cpuid)),
  } as Section<Xsave>,
  xcrs: section('kvm_xcrs', 'XCRS', registers.decodeXcrs, registers.encodeXcrs),
  debugregs: section(
    'kvm_debugregs',
    'DEBUGREGS',
    registers.decodeDebugRegs,
    registers.encodeDebugRegs,
  ),
  msrs: section<MsrEntry[], readonly MsrEntry[]>('kvm_msr_entry[]', 'MSRS', decodeMsrs, encodeMsrs),
  lapic: section('kvm_lapic_state', 'LAPIC', lapic.decodeLapic, lapic.encodeLapic),
  vcpu_events: section(
    'kvm_vcpu_events',
    'VCPU_EVENTS',
    events.decodeVcpuEvents,
    events.encodeVcpuEvents,
  ),
  mp_state: section('kvm_mp_state', 'MP_STATE', events.decodeMpState, events.encodeMpState),
} as const satisfies Record<VcpuSection, unknown>;

/** The sections of the VM, by their name in `RawVmState`. */
export const VM_SECTIONS = {
  pic_master: section('kvm_irqchip', 'IRQCHIP', irqchip.decodePic, irqchip.encodePic),
  pic_slave: section('kvm_irqchip', 'IRQCHIP', irqchip.decodePic, irqchip.encodePic),
  ioapic: section('kvm_irqchip', 'IRQCHIP', irqchip.decodeIoapic, irqchip.encodeIoapic),
  pit2: section('kvm_pit_state2', 'PIT2', irqchip.decodePit, irqchip.encodePit),
  clock: section('kvm_clock_data', 'CLOCK', irqchip.decodeClock, irqchip.encodeClock),
} as const satisfies Record<keyof RawVmState, unknown>;

/** The object that a vCPU section decodes to. */
export type VcpuSectionValue<S extends VcpuSection> = ReturnType<
  (typeof VCPU_SECTIONS)[S]['decode']
>;
