/** Registers of one vCPU, and running it by hand. */
import { type CpuidEntry, decodeCpuid } from '../cpu/cpuid-entries.js';
import { decodeMsrs, encodeMsrs, type MsrEntry } from '../cpu/msrs.js';
import { VCPU_SECTIONS, type VcpuSectionValue } from '../cpu/sections.js';
import type { Patch } from '../cpu/struct.js';
import { KvmsnapError } from '../errors.js';
import type { NativeExit, NativeMachine, VcpuSection } from '../native/binding.js';

/** Why a vCPU came back from KVM_RUN (Documentation/virt/kvm/api.rst, "struct kvm_run"). */
export type VcpuExit = NativeExit;

/** What {@link Vcpu.get} and {@link Vcpu.set} take: MSRs and CPUID have calls of their own. */
export type PatchableSection = Exclude<VcpuSection, 'cpuid2' | 'msrs'>;

/**
 * A vCPU of a machine that is not running: `ERR_STATE` otherwise. Reading also works on a poisoned
 * machine, to find out what became of it.
 *
 * Every `get` is a KVM_GET_* ioctl and gives the kernel's struct as an object with the kernel's field
 * names; every `set` takes some of its fields, reads the rest and sets all with KVM_SET_*. `ERR_IOCTL`
 * when KVM refuses.
 */
export class Vcpu {
  /** Its number, which is its APIC id. */
  readonly index: number;
  readonly #native: NativeMachine;

  /** @internal */
  constructor(index: number, native: NativeMachine) {
    this.index = index;
    this.#native = native;
  }

  /** KVM_GET_REGS, `struct kvm_regs`. */
  getRegs(): Promise<VcpuSectionValue<'regs'>> {
    return this.get('regs');
  }

  /** KVM_SET_REGS, `struct kvm_regs`. */
  setRegs(patch: Patch<VcpuSectionValue<'regs'>>): Promise<void> {
    return this.set('regs', patch);
  }

  /** KVM_GET_SREGS2, `struct kvm_sregs2`. */
  getSregs(): Promise<VcpuSectionValue<'sregs2'>> {
    return this.get('sregs2');
  }

  /** KVM_SET_SREGS2, `struct kvm_sregs2`. */
  setSregs(patch: Patch<VcpuSectionValue<'sregs2'>>): Promise<void> {
    return this.set('sregs2', patch);
  }

  /** KVM_GET_XSAVE2, `struct kvm_xsave`. */
  getXsave(): Promise<VcpuSectionValue<'xsave2'>> {
    return this.get('xsave2');
  }

  /** KVM_SET_XSAVE, `struct kvm_xsave`. */
  setXsave(patch: Patch<VcpuSectionValue<'xsave2'>>): Promise<void> {
    return this.set('xsave2', patch);
  }

  /** KVM_GET_XCRS, `struct kvm_xcrs`. */
  getXcrs(): Promise<VcpuSectionValue<'xcrs'>> {
    return this.get('xcrs');
  }

  /** KVM_SET_XCRS, `struct kvm_xcrs`. */
  setXcrs(patch: Patch<VcpuSectionValue<'xcrs'>>): Promise<void> {
    return this.set('xcrs', patch);
  }

  /** KVM_GET_DEBUGREGS, `struct kvm_debugregs`. */
  getDebugRegs(): Promise<VcpuSectionValue<'debugregs'>> {
    return this.get('debugregs');
  }

  /** KVM_SET_DEBUGREGS, `struct kvm_debugregs`. */
  setDebugRegs(patch: Patch<VcpuSectionValue<'debugregs'>>): Promise<void> {
    return this.set('debugregs', patch);
  }

  /** KVM_GET_LAPIC, `struct kvm_lapic_state`. `ERR_STATE` without irqchip. */
  getLapic(): Promise<VcpuSectionValue<'lapic'>> {
    return this.get('lapic');
  }

  /** KVM_SET_LAPIC, `struct kvm_lapic_state`. */
  setLapic(patch: Patch<VcpuSectionValue<'lapic'>>): Promise<void> {
    return this.set('lapic', patch);
  }

  /** KVM_GET_VCPU_EVENTS, `struct kvm_vcpu_events`. */
  getEvents(): Promise<VcpuSectionValue<'vcpu_events'>> {
    return this.get('vcpu_events');
  }

  /** KVM_SET_VCPU_EVENTS, `struct kvm_vcpu_events`. */
  setEvents(patch: Patch<VcpuSectionValue<'vcpu_events'>>): Promise<void> {
    return this.set('vcpu_events', patch);
  }

  /** KVM_GET_MP_STATE, `struct kvm_mp_state`. */
  getMpState(): Promise<VcpuSectionValue<'mp_state'>> {
    return this.get('mp_state');
  }

  /** KVM_SET_MP_STATE, `struct kvm_mp_state`. */
  setMpState(patch: Patch<VcpuSectionValue<'mp_state'>>): Promise<void> {
    return this.set('mp_state', patch);
  }

  /** What KVM_SET_CPUID2 was given. It is fixed when the machine is made (`VmOptions.cpuTemplate`). */
  async getCpuid(): Promise<CpuidEntry[]> {
    return decodeCpuid(await this.#native.getVcpu(this.index, 'cpuid2'));
  }

  /** KVM_GET_MSRS of the MSRs given, or of all that a snapshot holds. `ERR_MSR` names one it lacks. */
  async getMsrs(indices?: readonly number[]): Promise<MsrEntry[]> {
    const machine = this.#native;
    return decodeMsrs(
      indices === undefined
        ? await machine.getVcpu(this.index, 'msrs')
        : await machine.getMsrs(this.index, Uint32Array.from(indices)),
    );
  }

  /** KVM_SET_MSRS. `ERR_MSR` names the one that KVM refused; those before it are as they were. */
  async setMsrs(entries: readonly MsrEntry[]): Promise<void> {
    await this.#native.setVcpu(this.index, 'msrs', encodeMsrs(entries));
  }

  /**
   * Runs this vCPU alone until its next exit, which it gives. With `dispatch` devices and claims
   * answer theirs first, and only what nobody answers comes here, or what stopped the machine. An `in` or MMIO read wants an
   * {@link answer}; without one it reads ones. `pause()` ends it with an exit of kind `interrupted`.
   */
  async run(options: { dispatch?: boolean } = {}): Promise<VcpuExit> {
    return this.#native.runVcpu(this.index, {
      dispatch: options.dispatch ?? false,
      singleStep: false,
    });
  }

  /** Executes one instruction (KVM_GUESTDBG_SINGLESTEP): an exit of kind `debug`, or another. */
  async step(options: { dispatch?: boolean } = {}): Promise<VcpuExit> {
    return this.#native.runVcpu(this.index, {
      dispatch: options.dispatch ?? false,
      singleStep: true,
    });
  }

  /** The bytes for the `in` or MMIO read that `run` gave. Before anything else is asked of it. */
  answer(data: Uint8Array): void {
    this.#native.answerVcpu(this.index, data);
  }

  /** One struct by its name; see the shorthands above. */
  async get<S extends PatchableSection>(section: S): Promise<VcpuSectionValue<S>> {
    const raw = await this.#raw(section);
    const cpuid = section === 'xsave2' ? await this.getCpuid() : undefined;
    return VCPU_SECTIONS[section].decode(raw, cpuid) as VcpuSectionValue<S>;
  }

  async set<S extends PatchableSection>(
    section: S,
    patch: Patch<VcpuSectionValue<S>>,
  ): Promise<void> {
    const machine = this.#native;
    const base = await this.#raw(section);
    const cpuid = section === 'xsave2' ? await this.getCpuid() : undefined;
    const encode = VCPU_SECTIONS[section].encode as (
      patch: unknown,
      base: Uint8Array,
      cpuid?: readonly CpuidEntry[],
    ) => Uint8Array;
    await machine.setVcpu(this.index, section, encode(patch, base, cpuid));
  }

  async #raw(section: PatchableSection): Promise<Uint8Array> {
    const raw = await this.#native.getVcpu(this.index, section);
    if (raw.length === 0) {
      throw new KvmsnapError('ERR_STATE', `the machine has no ${section}: it has no irqchip`);
    }
    return raw;
  }
}
