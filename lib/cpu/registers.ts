/**
 * General, segment, control, debug and extended control registers, as KVM gives them
 * (Linux `arch/x86/include/uapi/asm/kvm.h`, Documentation/virt/kvm/api.rst).
 */
import { array, type Decoded, type Patch, pad, struct, u8, u16, u32, u64 } from './struct.js';

/** `struct kvm_regs`: KVM_GET_REGS, KVM_SET_REGS. */
export const KVM_REGS = struct('kvm_regs', {
  rax: u64,
  rbx: u64,
  rcx: u64,
  rdx: u64,
  rsi: u64,
  rdi: u64,
  rsp: u64,
  rbp: u64,
  r8: u64,
  r9: u64,
  r10: u64,
  r11: u64,
  r12: u64,
  r13: u64,
  r14: u64,
  r15: u64,
  rip: u64,
  rflags: u64,
});
/** General registers, instruction pointer and flags. */
export interface Regs extends Decoded<typeof KVM_REGS> {}

/** `struct kvm_segment`: a segment register with its hidden part (Intel SDM volume 3, 3.4.3). */
export const KVM_SEGMENT = struct('kvm_segment', {
  base: u64,
  /** In bytes, after the granularity bit was applied. */
  limit: u32,
  selector: u16,
  type: u8,
  present: u8,
  dpl: u8,
  db: u8,
  /** 1: code or data; 0: system. */
  s: u8,
  l: u8,
  g: u8,
  avl: u8,
  unusable: u8,
  padding: pad(1),
});
export interface Segment extends Decoded<typeof KVM_SEGMENT> {}

/** `struct kvm_dtable`: GDTR or IDTR. */
export const KVM_DTABLE = struct('kvm_dtable', { base: u64, limit: u16, padding: pad(6) });
export interface DescriptorTable extends Decoded<typeof KVM_DTABLE> {}

/** `kvm_sregs2.flags`: `pdptrs` holds values (PAE paging without long mode). */
export const KVM_SREGS2_FLAGS_PDPTRS_VALID = 1n;

/** `struct kvm_sregs2`: KVM_GET_SREGS2, KVM_SET_SREGS2 (KVM_CAP_SREGS2). */
export const KVM_SREGS2 = struct('kvm_sregs2', {
  cs: KVM_SEGMENT,
  ds: KVM_SEGMENT,
  es: KVM_SEGMENT,
  fs: KVM_SEGMENT,
  gs: KVM_SEGMENT,
  ss: KVM_SEGMENT,
  tr: KVM_SEGMENT,
  ldt: KVM_SEGMENT,
  gdt: KVM_DTABLE,
  idt: KVM_DTABLE,
  cr0: u64,
  cr2: u64,
  cr3: u64,
  cr4: u64,
  cr8: u64,
  efer: u64,
  /** IA32_APIC_BASE. */
  apic_base: u64,
  /** `KVM_SREGS2_FLAGS_PDPTRS_VALID`. */
  flags: u64,
  pdptrs: array(u64, 4),
});
/** Segment, descriptor table and control registers, EFER, APIC base, PDPTRs. */
export interface Sregs extends Decoded<typeof KVM_SREGS2> {}

/** `struct kvm_debugregs`: KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS. */
export const KVM_DEBUGREGS = struct('kvm_debugregs', {
  /** DR0 to DR3. */
  db: array(u64, 4),
  dr6: u64,
  dr7: u64,
  /** No flag is defined: KVM_SET_DEBUGREGS refuses others than 0. */
  flags: u64,
  reserved: pad(72),
});
export interface DebugRegs extends Decoded<typeof KVM_DEBUGREGS> {}

export const KVM_MAX_XCRS = 16;

/** `struct kvm_xcrs`: KVM_GET_XCRS, KVM_SET_XCRS. Entries at and after `nr_xcrs` are unused. */
export const KVM_XCRS = struct('kvm_xcrs', {
  nr_xcrs: u32,
  flags: u32,
  xcrs: array(struct('kvm_xcr', { xcr: u32, reserved: pad(4), value: u64 }), KVM_MAX_XCRS),
  padding: pad(128),
});
export interface Xcrs extends Decoded<typeof KVM_XCRS> {}

export const decodeRegs = (raw: Uint8Array): Regs => KVM_REGS.decode(raw);
export const encodeRegs = (patch: Patch<Regs>, base?: Uint8Array): Uint8Array =>
  KVM_REGS.encode(patch, base);
export const decodeSregs = (raw: Uint8Array): Sregs => KVM_SREGS2.decode(raw);
export const encodeSregs = (patch: Patch<Sregs>, base?: Uint8Array): Uint8Array =>
  KVM_SREGS2.encode(patch, base);
export const decodeDebugRegs = (raw: Uint8Array): DebugRegs => KVM_DEBUGREGS.decode(raw);
export const encodeDebugRegs = (patch: Patch<DebugRegs>, base?: Uint8Array): Uint8Array =>
  KVM_DEBUGREGS.encode(patch, base);
export const decodeXcrs = (raw: Uint8Array): Xcrs => KVM_XCRS.decode(raw);
export const encodeXcrs = (patch: Patch<Xcrs>, base?: Uint8Array): Uint8Array =>
  KVM_XCRS.encode(patch, base);
