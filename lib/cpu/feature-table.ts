/**
 * CPUID feature bits by name: Linux's names in `/proc/cpuinfo`, where it has one (Intel SDM
 * volume 2 "CPUID", AMD APM volume 3 appendix E, Documentation/virt/kvm/x86/cpuid.rst).
 */
import { KvmsnapError } from '../errors.js';
import type { CpuidRegister } from './cpuid-entries.js';

/** One feature bit. */
export interface FeatureBit {
  leaf: number;
  subleaf: number;
  register: CpuidRegister;
  bit: number;
}

/** A register whose bits are features, with the names of bits: `name` or `name@bit`. */
export interface FeatureRegister {
  leaf: number;
  subleaf: number;
  register: CpuidRegister;
  /** By bit; a hole is a bit without a name. */
  names: readonly (string | undefined)[];
}

/**
 * `list`: names from bit 0 up, separated by blanks. `12:` goes on at bit 12.
 */
function register(
  leaf: number,
  subleaf: number,
  name: CpuidRegister,
  list: string,
): FeatureRegister {
  const names: (string | undefined)[] = new Array(32).fill(undefined);
  let bit = 0;
  for (const word of list.split(/\s+/).filter((part) => part !== '')) {
    if (word.endsWith(':')) bit = Number(word.slice(0, -1));
    else names[bit++] = word;
  }
  return { leaf, subleaf, register: name, names };
}

/** Every register of feature bits, named or not. XCR0 and IA32_XSS components are among them. */
export const FEATURE_REGISTERS: readonly FeatureRegister[] = [
  register(
    1,
    0,
    'edx',
    `fpu vme de pse tsc msr pae mce cx8 apic 11: sep mtrr pge mca cmov pat pse36 pn clflush
     21: dts acpi mmx fxsr sse sse2 ss ht tm ia64 pbe`,
  ),
  register(
    1,
    0,
    'ecx',
    `pni pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm
     17: pcid dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c
     rdrand hypervisor`,
  ),
  register(
    6,
    0,
    'eax',
    `dtherm ida arat 4: pln 6: pts hwp hwp_notify hwp_act_window hwp_epp hwp_pkg_req 19: hfi`,
  ),
  register(6, 0, 'ecx', 'aperfmperf 3: epb'),
  register(
    7,
    0,
    'ebx',
    `fsgsbase tsc_adjust sgx bmi1 hle avx2 fdp_excptn_only smep bmi2 erms invpcid rtm cqm
     zero_fcs_fds mpx rdt_a avx512f avx512dq rdseed adx smap avx512ifma 23: clflushopt clwb intel_pt
     avx512pf avx512er avx512cd sha_ni avx512bw avx512vl`,
  ),
  register(
    7,
    0,
    'ecx',
    `prefetchwt1 avx512vbmi umip pku ospke waitpkg avx512_vbmi2 shstk gfni vaes vpclmulqdq
     avx512_vnni avx512_bitalg tme avx512_vpopcntdq 16: la57 22: rdpid key_locker
     bus_lock_detect cldemote 27: movdiri movdir64b enqcmd sgx_lc pks`,
  ),
  register(
    7,
    0,
    'edx',
    `1: sgx_keys avx512_4vnniw avx512_4fmaps fsrm uintr 8: avx512_vp2intersect srbds_ctrl md_clear
     rtm_always_abort 13: tsx_force_abort serialize hybrid_cpu tsxldtrk 18: pconfig arch_lbr ibt
     22: amx_bf16 avx512_fp16 amx_tile amx_int8 spec_ctrl intel_stibp flush_l1d arch_capabilities
     core_capabilities spec_ctrl_ssbd`,
  ),
  register(
    7,
    1,
    'eax',
    `sha512 sm3 sm4 rao_int avx_vnni avx512_bf16 lass cmpccxadd arch_perfmon_ext 10: fzrm fsrs fsrc
     17: fred lkgs wrmsrns nmi_src amx_fp16 hreset avx_ifma 26: lam msrlist`,
  ),
  register(7, 1, 'ebx', 'ppin'),
  register(7, 1, 'ecx', ''),
  register(
    7,
    1,
    'edx',
    `4: avx_vnni_int8 avx_ne_convert 8: amx_complex 10: avx_vnni_int16 14: prefetchiti
     17: uiret_uif cet_sss avx10`,
  ),
  register(7, 2, 'edx', 'psfd ipred_ctrl rrsba_ctrl ddpd_u bhi_ctrl mcdt_no'),
  register(
    0xd,
    0,
    'eax',
    `xcr0_x87 xcr0_sse xcr0_avx xcr0_bndregs xcr0_bndcsr xcr0_opmask xcr0_zmm_hi256 xcr0_hi16_zmm
     9: xcr0_pkru 17: xcr0_tilecfg xcr0_tiledata xcr0_apx`,
  ),
  register(0xd, 0, 'edx', ''),
  register(0xd, 1, 'eax', 'xsaveopt xsavec xgetbv1 xsaves xfd'),
  register(
    0xd,
    1,
    'ecx',
    '8: xss_pt 10: xss_pasid xss_cet_u xss_cet_s xss_hdc xss_uintr xss_lbr xss_hwp',
  ),
  register(0xd, 1, 'edx', ''),
  register(0x14, 0, 'ebx', ''),
  register(0x14, 0, 'ecx', ''),
  register(
    0x40000001,
    0,
    'eax',
    `kvm_clocksource kvm_nop_io_delay kvm_mmu_op kvm_clocksource2 kvm_async_pf kvm_steal_time
     kvm_pv_eoi kvm_pv_unhalt 9: kvm_pv_tlb_flush kvm_async_pf_vmexit kvm_pv_send_ipi
     kvm_poll_control kvm_pv_sched_yield kvm_async_pf_int kvm_msi_ext_dest_id
     kvm_hc_map_gpa_range kvm_migration_control 24: kvm_clocksource_stable_bit`,
  ),
  register(
    0x80000001,
    0,
    'edx',
    `11: syscall 19: mp nx 22: mmxext 25: fxsr_opt pdpe1gb rdtscp 29: lm 3dnowext 3dnow`,
  ),
  register(
    0x80000001,
    0,
    'ecx',
    `lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop
     skinit wdt 15: lwp fma4 tce 19: nodeid_msr 21: tbm topoext perfctr_core perfctr_nb 26: bpext
     ptsc perfctr_llc mwaitx`,
  ),
  register(0x80000007, 0, 'ebx', 'overflow_recov succor 3: smca'),
  register(0x80000007, 0, 'edx', '8: nonstop_tsc cpb'),
  register(
    0x80000008,
    0,
    'ebx',
    `clzero irperf xsaveerptr 4: rdpru 9: wbnoinvd 12: amd_ibpb 14: amd_ibrs amd_stibp
     17: amd_stibp_always_on 23: amd_ppin amd_ssbd virt_ssbd amd_ssb_no cppc amd_psfd btc_no
     amd_ibpb_ret brs`,
  ),
  register(
    0x8000000a,
    0,
    'edx',
    `npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists 10: pausefilter
     12: pfthreshold avic 15: v_vmsave_vmload vgif 20: v_spec_ctrl 25: vnmi 28: svme_addr_chk`,
  ),
  register(0x8000001f, 0, 'eax', 'sme sev vm_page_flush sev_es sev_snp 9: v_tsc_aux sme_coherent'),
  register(
    0x80000021,
    0,
    'eax',
    `no_nested_data_bp fsgs_non_serializing lfence_rdtsc 5: verw_clear null_sel_clr_base 8: autoibrs
     no_smm_ctl_msr 27: sbpb ibpb_brtype srso_no srso_user_kernel_no`,
  ),
  register(0x80000021, 0, 'ecx', '1: tsa_sq_no tsa_l1_no'),
  register(0x80000022, 0, 'eax', 'perfmon_v2'),
];

const BY_NAME: ReadonlyMap<string, FeatureBit> = new Map(
  FEATURE_REGISTERS.flatMap(({ names, ...place }) =>
    names.flatMap((name, bit) => (name === undefined ? [] : [[name, { ...place, bit }] as const])),
  ),
);

/** Where a feature is told; ERR_INVALID_ARGUMENT for a name that is not in the table. */
export function featureBit(name: string): FeatureBit {
  const found = BY_NAME.get(name);
  if (found === undefined) {
    throw new KvmsnapError(
      'ERR_INVALID_ARGUMENT',
      `there is no CPU feature named ${name}; use a name of /proc/cpuinfo, or clear the bit by leaf and register`,
    );
  }
  return found;
}

/** All names, in the order of the table. */
export const featureNames = (): string[] => [...BY_NAME.keys()];

/** The name of a bit, or `cpuid.LEAF.SUBLEAF.REGISTER[bit]` in hexadecimal. */
export function featureName({ leaf, subleaf, register: name, bit }: FeatureBit): string {
  const known = FEATURE_REGISTERS.find(
    (entry) => entry.leaf === leaf && entry.subleaf === subleaf && entry.register === name,
  )?.names[bit];
  return known ?? `cpuid.${leaf.toString(16)}.${subleaf.toString(16)}.${name}[${bit}]`;
}

/** What cannot be without the feature before the colon. Masking follows these, at every depth. */
const NEEDED_BY: Readonly<Record<string, string>> = {
  xsave: 'xsaveopt xsavec xgetbv1 xsaves xfd avx pku mpx amx_tile osxsave',
  xsavec: 'xsaves',
  avx: 'avx2 fma f16c fma4 xop vaes vpclmulqdq avx_vnni avx_ifma avx_vnni_int8 avx_vnni_int16 avx_ne_convert sha512 sm3 sm4 xcr0_avx',
  avx2: 'avx512f avx10',
  avx512f:
    'avx512dq avx512ifma avx512pf avx512er avx512cd avx512bw avx512vl avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg avx512_vpopcntdq avx512_4vnniw avx512_4fmaps avx512_vp2intersect avx512_bf16 avx512_fp16 avx10 xcr0_opmask xcr0_zmm_hi256 xcr0_hi16_zmm',
  avx512bw: 'avx512vbmi avx512_vbmi2 avx512_bitalg avx512_fp16',
  amx_tile: 'amx_bf16 amx_int8 amx_fp16 amx_complex xfd xcr0_tilecfg xcr0_tiledata',
  mpx: 'xcr0_bndregs xcr0_bndcsr',
  pku: 'ospke xcr0_pkru',
  shstk: 'cet_sss',
  sse4_1: 'sse4_2',
  ssse3: 'sse4_1',
  pni: 'ssse3',
  sgx: 'sgx_lc sgx_keys',
  svm: 'npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists pausefilter pfthreshold avic v_vmsave_vmload vgif v_spec_ctrl vnmi svme_addr_chk',
};

/** `name` and every feature of the table that needs it. */
export function withDependents(name: string): string[] {
  const found = new Set<string>();
  const pending = [name];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (found.has(next)) continue;
    found.add(next);
    pending.push(...(NEEDED_BY[next] ?? '').split(' ').filter((part) => part !== ''));
  }
  return [...found];
}
