/**
 * What a vCPU has pending, and whether it runs: `struct kvm_vcpu_events`, `struct kvm_mp_state`
 * (Documentation/virt/kvm/api.rst).
 */
import { type Decoded, type Patch, pad, struct, u8, u32, u64 } from './struct.js';

/** `kvm_vcpu_events.flags`: which optional fields KVM_SET_VCPU_EVENTS takes. */
export const KVM_VCPUEVENT_VALID = {
  NMI_PENDING: 0x01,
  SIPI_VECTOR: 0x02,
  SHADOW: 0x04,
  SMM: 0x08,
  /** KVM_CAP_EXCEPTION_PAYLOAD. */
  PAYLOAD: 0x10,
  /** KVM_CAP_X86_TRIPLE_FAULT_EVENT. */
  TRIPLE_FAULT: 0x20,
} as const;

/** `struct kvm_vcpu_events`: KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS. */
export const KVM_VCPU_EVENTS = struct('kvm_vcpu_events', {
  exception: struct('exception', {
    injected: u8,
    nr: u8,
    has_error_code: u8,
    pending: u8,
    error_code: u32,
  }),
  interrupt: struct('interrupt', {
    injected: u8,
    nr: u8,
    soft: u8,
    /** Interrupt shadow: 1 after `mov ss`, 2 after `sti`. */
    shadow: u8,
  }),
  nmi: struct('nmi', { injected: u8, pending: u8, masked: u8, pad: pad(1) }),
  sipi_vector: u32,
  /** `KVM_VCPUEVENT_VALID`. */
  flags: u32,
  smi: struct('smi', { smm: u8, pending: u8, smm_inside_nmi: u8, latched_init: u8 }),
  triple_fault: struct('triple_fault', { pending: u8 }),
  reserved: pad(26),
  exception_has_payload: u8,
  exception_payload: u64,
});
export interface VcpuEvents extends Decoded<typeof KVM_VCPU_EVENTS> {}

/** `kvm_mp_state.mp_state` values that x86 has. */
export const KVM_MP_STATE_NAMES: Readonly<Record<number, string>> = {
  0: 'runnable',
  1: 'uninitialized',
  2: 'init-received',
  3: 'halted',
  4: 'sipi-received',
  9: 'ap-reset-hold',
};

/** `struct kvm_mp_state`: KVM_GET_MP_STATE, KVM_SET_MP_STATE. */
export const KVM_MP_STATE = struct('kvm_mp_state', {
  /** `KVM_MP_STATE_NAMES`. */
  mp_state: u32,
});
export interface MpState extends Decoded<typeof KVM_MP_STATE> {}

export const decodeVcpuEvents = (raw: Uint8Array): VcpuEvents => KVM_VCPU_EVENTS.decode(raw);
export const encodeVcpuEvents = (patch: Patch<VcpuEvents>, base?: Uint8Array): Uint8Array =>
  KVM_VCPU_EVENTS.encode(patch, base);
export const decodeMpState = (raw: Uint8Array): MpState => KVM_MP_STATE.decode(raw);
export const encodeMpState = (patch: Patch<MpState>, base?: Uint8Array): Uint8Array =>
  KVM_MP_STATE.encode(patch, base);
