/**
 * Names of model-specific registers, for reading and printing state. Intel SDM volume 4, AMD APM
 * volume 2 appendix A, Documentation/virt/kvm/x86/msr.rst, Hyper-V TLFS appendix; the set is what
 * KVM lists in KVM_GET_MSR_INDEX_LIST and takes in KVM_SET_MSRS.
 */
import { requireArgument } from '../errors.js';
import { decodeList, encodeList } from './list.js';
import { type Decoded, pad, struct, u32, u64 } from './struct.js';

/** KVM reads and writes at most this many MSRs in one call (KVM's own limit). */
export const KVM_MAX_MSR_ENTRIES = 256;
/** A saved state may hold several calls' worth. */
const MAX_SAVED_MSRS = 4096;

export const KVM_MSR_ENTRY = struct('kvm_msr_entry', { index: u32, reserved: pad(4), data: u64 });
export interface MsrEntry extends Decoded<typeof KVM_MSR_ENTRY> {}

export const decodeMsrs = (raw: Uint8Array): MsrEntry[] =>
  decodeList(KVM_MSR_ENTRY, MAX_SAVED_MSRS, raw);
export const encodeMsrs = (entries: readonly MsrEntry[]): Uint8Array =>
  encodeList(KVM_MSR_ENTRY, MAX_SAVED_MSRS, entries);

const SINGLE: Record<string, number> = {
  // Architectural: time, APIC, features.
  IA32_TSC: 0x10,
  IA32_PLATFORM_ID: 0x17,
  IA32_APIC_BASE: 0x1b,
  SMI_COUNT: 0x34,
  IA32_FEAT_CTL: 0x3a,
  IA32_TSC_ADJUST: 0x3b,
  IA32_SPEC_CTRL: 0x48,
  IA32_PRED_CMD: 0x49,
  VIRTUAL_ENUMERATION: 0x50000000,
  IA32_UCODE_REV: 0x8b,
  IA32_SMM_MONITOR_CTL: 0x9b,
  IA32_SMBASE: 0x9e,
  IA32_CORE_CAPS: 0xcf,
  PLATFORM_INFO: 0xce,
  IA32_UMWAIT_CONTROL: 0xe1,
  IA32_MPERF: 0xe7,
  IA32_APERF: 0xe8,
  IA32_MTRRCAP: 0xfe,
  IA32_ARCH_CAPABILITIES: 0x10a,
  IA32_FLUSH_CMD: 0x10b,
  BBL_CR_CTL3: 0x11e,
  IA32_TSX_CTRL: 0x122,
  IA32_MCU_OPT_CTRL: 0x123,
  MISC_FEATURES_ENABLES: 0x140,
  IA32_SYSENTER_CS: 0x174,
  IA32_SYSENTER_ESP: 0x175,
  IA32_SYSENTER_EIP: 0x176,
  IA32_MCG_CAP: 0x179,
  IA32_MCG_STATUS: 0x17a,
  IA32_MCG_CTL: 0x17b,
  IA32_PERF_STATUS: 0x198,
  IA32_PERF_CTL: 0x199,
  IA32_THERM_CONTROL: 0x19a,
  IA32_THERM_INTERRUPT: 0x19b,
  IA32_THERM_STATUS: 0x19c,
  IA32_MISC_ENABLE: 0x1a0,
  MISC_FEATURE_CONTROL: 0x1a4,
  OFFCORE_RSP_0: 0x1a6,
  OFFCORE_RSP_1: 0x1a7,
  IA32_ENERGY_PERF_BIAS: 0x1b0,
  IA32_XFD: 0x1c4,
  IA32_XFD_ERR: 0x1c5,
  IA32_FRED_RSP0: 0x1cc,
  IA32_FRED_RSP1: 0x1cd,
  IA32_FRED_RSP2: 0x1ce,
  IA32_FRED_RSP3: 0x1cf,
  IA32_FRED_STKLVLS: 0x1d0,
  IA32_FRED_SSP1: 0x1d1,
  IA32_FRED_SSP2: 0x1d2,
  IA32_FRED_SSP3: 0x1d3,
  IA32_FRED_CONFIG: 0x1d4,
  IA32_DEBUGCTL: 0x1d9,
  LASTBRANCHFROMIP: 0x1db,
  LASTBRANCHTOIP: 0x1dc,
  LASTINTFROMIP: 0x1dd,
  LASTINTTOIP: 0x1de,
  IA32_POWER_CTL: 0x1fc,
  MTRR_FIX_64K_00000: 0x250,
  MTRR_FIX_16K_80000: 0x258,
  MTRR_FIX_16K_A0000: 0x259,
  MTRR_FIX_4K_C0000: 0x268,
  MTRR_FIX_4K_C8000: 0x269,
  MTRR_FIX_4K_D0000: 0x26a,
  MTRR_FIX_4K_D8000: 0x26b,
  MTRR_FIX_4K_E0000: 0x26c,
  MTRR_FIX_4K_E8000: 0x26d,
  MTRR_FIX_4K_F0000: 0x26e,
  MTRR_FIX_4K_F8000: 0x26f,
  IA32_PAT: 0x277,
  IA32_MTRR_DEF_TYPE: 0x2ff,
  IA32_PERF_CAPABILITIES: 0x345,
  IA32_FIXED_CTR_CTRL: 0x38d,
  IA32_PERF_GLOBAL_STATUS: 0x38e,
  IA32_PERF_GLOBAL_CTRL: 0x38f,
  IA32_PERF_GLOBAL_OVF_CTRL: 0x390,
  IA32_PEBS_ENABLE: 0x3f1,
  PEBS_DATA_CFG: 0x3f2,
  PEBS_LD_LAT_THRESHOLD: 0x3f6,
  IA32_MCG_EXT_CTL: 0x4d0,
  // VMX capabilities.
  IA32_VMX_BASIC: 0x480,
  IA32_VMX_PINBASED_CTLS: 0x481,
  IA32_VMX_PROCBASED_CTLS: 0x482,
  IA32_VMX_EXIT_CTLS: 0x483,
  IA32_VMX_ENTRY_CTLS: 0x484,
  IA32_VMX_MISC: 0x485,
  IA32_VMX_CR0_FIXED0: 0x486,
  IA32_VMX_CR0_FIXED1: 0x487,
  IA32_VMX_CR4_FIXED0: 0x488,
  IA32_VMX_CR4_FIXED1: 0x489,
  IA32_VMX_VMCS_ENUM: 0x48a,
  IA32_VMX_PROCBASED_CTLS2: 0x48b,
  IA32_VMX_EPT_VPID_CAP: 0x48c,
  IA32_VMX_TRUE_PINBASED_CTLS: 0x48d,
  IA32_VMX_TRUE_PROCBASED_CTLS: 0x48e,
  IA32_VMX_TRUE_EXIT_CTLS: 0x48f,
  IA32_VMX_TRUE_ENTRY_CTLS: 0x490,
  IA32_VMX_VMFUNC: 0x491,
  IA32_VMX_PROCBASED_CTLS3: 0x492,
  // Processor trace, debug store, CET, TSC deadline, LBR.
  IA32_RTIT_OUTPUT_BASE: 0x560,
  IA32_RTIT_OUTPUT_MASK: 0x561,
  IA32_RTIT_CTL: 0x570,
  IA32_RTIT_STATUS: 0x571,
  IA32_RTIT_CR3_MATCH: 0x572,
  IA32_RTIT_ADDR0_A: 0x580,
  IA32_RTIT_ADDR0_B: 0x581,
  IA32_RTIT_ADDR1_A: 0x582,
  IA32_RTIT_ADDR1_B: 0x583,
  IA32_RTIT_ADDR2_A: 0x584,
  IA32_RTIT_ADDR2_B: 0x585,
  IA32_RTIT_ADDR3_A: 0x586,
  IA32_RTIT_ADDR3_B: 0x587,
  IA32_DS_AREA: 0x600,
  IA32_U_CET: 0x6a0,
  IA32_S_CET: 0x6a2,
  IA32_PL0_SSP: 0x6a4,
  IA32_PL1_SSP: 0x6a5,
  IA32_PL2_SSP: 0x6a6,
  IA32_PL3_SSP: 0x6a7,
  IA32_INT_SSP_TAB: 0x6a8,
  IA32_TSC_DEADLINE: 0x6e0,
  IA32_BNDCFGS: 0xd90,
  IA32_PASID: 0xd93,
  IA32_XSS: 0xda0,
  ARCH_LBR_CTL: 0x14ce,
  ARCH_LBR_DEPTH: 0x14cf,
  // Long mode.
  EFER: 0xc0000080,
  STAR: 0xc0000081,
  LSTAR: 0xc0000082,
  CSTAR: 0xc0000083,
  SYSCALL_MASK: 0xc0000084,
  FS_BASE: 0xc0000100,
  GS_BASE: 0xc0000101,
  KERNEL_GS_BASE: 0xc0000102,
  TSC_AUX: 0xc0000103,
  // AMD.
  AMD64_TSC_RATIO: 0xc0000104,
  AMD64_LBR_SELECT: 0xc000010e,
  AMD64_PERF_CNTR_GLOBAL_STATUS: 0xc0000300,
  AMD64_PERF_CNTR_GLOBAL_CTL: 0xc0000301,
  AMD64_PERF_CNTR_GLOBAL_STATUS_CLR: 0xc0000302,
  AMD64_PERF_CNTR_GLOBAL_STATUS_SET: 0xc0000303,
  AMD64_SYSCFG: 0xc0010010,
  K7_HWCR: 0xc0010015,
  AMD64_NB_CFG: 0xc001001f,
  VM_CR: 0xc0010114,
  VM_IGNNE: 0xc0010115,
  VM_HSAVE_PA: 0xc0010117,
  AMD64_VIRT_SPEC_CTRL: 0xc001011f,
  AMD64_SEV_ES_GHCB: 0xc0010130,
  AMD64_SEV: 0xc0010131,
  AMD64_OSVW_ID_LENGTH: 0xc0010140,
  AMD64_OSVW_STATUS: 0xc0010141,
  AMD64_LS_CFG: 0xc0011020,
  AMD64_DC_CFG: 0xc0011022,
  AMD64_DE_CFG: 0xc0011029,
  AMD64_BU_CFG2: 0xc001102a,
  // KVM paravirtual.
  KVM_WALL_CLOCK: 0x11,
  KVM_SYSTEM_TIME: 0x12,
  KVM_WALL_CLOCK_NEW: 0x4b564d00,
  KVM_SYSTEM_TIME_NEW: 0x4b564d01,
  KVM_ASYNC_PF_EN: 0x4b564d02,
  KVM_STEAL_TIME: 0x4b564d03,
  KVM_PV_EOI_EN: 0x4b564d04,
  KVM_POLL_CONTROL: 0x4b564d05,
  KVM_ASYNC_PF_INT: 0x4b564d06,
  KVM_ASYNC_PF_ACK: 0x4b564d07,
  KVM_MIGRATION_CONTROL: 0x4b564d08,
  // Hyper-V synthetic.
  HV_GUEST_OS_ID: 0x40000000,
  HV_HYPERCALL: 0x40000001,
  HV_VP_INDEX: 0x40000002,
  HV_RESET: 0x40000003,
  HV_VP_RUNTIME: 0x40000010,
  HV_TIME_REF_COUNT: 0x40000020,
  HV_REFERENCE_TSC: 0x40000021,
  HV_TSC_FREQUENCY: 0x40000022,
  HV_APIC_FREQUENCY: 0x40000023,
  HV_EOI: 0x40000070,
  HV_ICR: 0x40000071,
  HV_TPR: 0x40000072,
  HV_VP_ASSIST_PAGE: 0x40000073,
  HV_SCONTROL: 0x40000080,
  HV_SVERSION: 0x40000081,
  HV_SIEFP: 0x40000082,
  HV_SIMP: 0x40000083,
  HV_EOM: 0x40000084,
  HV_SYNDBG_CONTROL: 0x400000f1,
  HV_SYNDBG_STATUS: 0x400000f2,
  HV_SYNDBG_SEND_BUFFER: 0x400000f3,
  HV_SYNDBG_RECV_BUFFER: 0x400000f4,
  HV_SYNDBG_PENDING_BUFFER: 0x400000f5,
  HV_SYNDBG_OPTIONS: 0x400000ff,
  HV_CRASH_CTL: 0x40000105,
  HV_REENLIGHTENMENT_CONTROL: 0x40000106,
  HV_TSC_EMULATION_CONTROL: 0x40000107,
  HV_TSC_EMULATION_STATUS: 0x40000108,
  HV_TSC_INVARIANT_CONTROL: 0x40000118,
};

/** Numbered registers: name with `#`, first index, how many, how far apart. */
const NUMBERED: readonly (readonly [string, number, number, number])[] = [
  ['IA32_SGXLEPUBKEYHASH#', 0x8c, 4, 1],
  ['IA32_PERFCTR#', 0xc1, 8, 1],
  ['IA32_PERFEVTSEL#', 0x186, 8, 1],
  ['IA32_MTRR_PHYSBASE#', 0x200, 16, 2],
  ['IA32_MTRR_PHYSMASK#', 0x201, 16, 2],
  ['IA32_MC#_CTL2', 0x280, 32, 1],
  ['IA32_FIXED_CTR#', 0x309, 4, 1],
  ['IA32_MC#_CTL', 0x400, 32, 4],
  ['IA32_MC#_STATUS', 0x401, 32, 4],
  ['IA32_MC#_ADDR', 0x402, 32, 4],
  ['IA32_MC#_MISC', 0x403, 32, 4],
  ['IA32_PMC#', 0x4c1, 8, 1],
  ['ARCH_LBR_INFO_#', 0x1200, 32, 1],
  ['ARCH_LBR_FROM_#', 0x1500, 32, 1],
  ['ARCH_LBR_TO_#', 0x1600, 32, 1],
  ['K7_EVNTSEL#', 0xc0010000, 4, 1],
  ['K7_PERFCTR#', 0xc0010004, 4, 1],
  ['F15H_PERF_CTL#', 0xc0010200, 6, 2],
  ['F15H_PERF_CTR#', 0xc0010201, 6, 2],
  ['HV_SINT#', 0x40000090, 16, 1],
  ['HV_STIMER#_CONFIG', 0x400000b0, 4, 2],
  ['HV_STIMER#_COUNT', 0x400000b1, 4, 2],
  ['HV_CRASH_P#', 0x40000100, 5, 1],
];

/** MSR indices by name. */
export const MSR: Readonly<Record<string, number>> = Object.freeze({
  ...SINGLE,
  ...Object.fromEntries(
    NUMBERED.flatMap(([name, first, count, step]) =>
      Array.from({ length: count }, (_, i) => [name.replace('#', String(i)), first + i * step]),
    ),
  ),
});

const NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(MSR).map(([name, index]) => [index, name]),
);

/** x2APIC registers are the LAPIC page at 0x800, one MSR for each 16 bytes. */
const X2APIC_FIRST = 0x800;
const X2APIC_LAST = 0x8ff;
const hex = (index: number, digits: number) => index.toString(16).padStart(digits, '0');

/** The name of an MSR, or `MSR_` and its index in 8 hexadecimal digits. */
export function msrName(index: number): string {
  if (index >= X2APIC_FIRST && index <= X2APIC_LAST) {
    return `X2APIC_${hex((index - X2APIC_FIRST) * 16, 3)}`;
  }
  return NAMES.get(index) ?? `MSR_${hex(index, 8)}`;
}

/** The index of a name that {@link msrName} gives; ERR_INVALID_ARGUMENT for any other. */
export function msrIndex(name: string): number {
  const numeric = /^MSR_([0-9a-f]{8})$/.exec(name);
  if (numeric) return Number.parseInt(numeric[1]!, 16);
  const x2apic = /^X2APIC_([0-9a-f]{2}0)$/.exec(name);
  if (x2apic) return X2APIC_FIRST + Number.parseInt(x2apic[1]!, 16) / 16;
  requireArgument(
    Object.hasOwn(MSR, name),
    `there is no MSR named ${name}; use a name that inspect prints, or MSR_ and 8 hexadecimal digits`,
  );
  return MSR[name]!;
}
