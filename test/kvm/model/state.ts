/** Registers and devices of a machine with the guest `jobs`, as they have to be. */
import { encodeMsrs } from '../../../lib/cpu/msrs.js';
import { VCPU_SECTIONS } from '../../../lib/cpu/sections.js';
import type { RawMachineState, RawVcpuState } from '../../../lib/native/binding.js';
import { GUEST_ABI as ABI } from '../../../lib/native/guest-abi.js';
import { differences } from '../support/state.js';

/**
 * Results of arithmetic, which depend on where in its loop a waiting guest stands, and RF, which the CPU sets
 * in what it saves at a fault of an instruction: the loop reads memory that may have to be mapped.
 */
const FLEETING_FLAGS = 0x8d5n | 0x10000n;
export const KERNEL_GS_BASE = 0xc0000102;

/** What jobs and the host change in a vCPU. */
export interface ModelVcpu {
  regs: Record<'rax' | 'rbx' | 'rcx' | 'rdx' | 'r8' | 'r9' | 'r10' | 'r11' | 'r13', bigint>;
  xmm0: bigint;
  xmm1: bigint;
  kernelGsBase: bigint;
  dr0: bigint;
}

export interface ModelDevices {
  scratch: number;
  /** The unread byte of the serial port. */
  received: number | undefined;
  cmosIndex: number;
  /** RAM from 0x40 on. */
  cmos: readonly number[];
}

export class ModelState {
  readonly vcpus: readonly ModelVcpu[];
  readonly devices: ModelDevices;
  /** All the rest, which stays as it is. */
  readonly #base: RawMachineState;
  /** Where the guest waits. */
  readonly #waits: { first: bigint; end: bigint };

  private constructor(
    base: RawMachineState,
    waits: { first: bigint; end: bigint },
    vcpus: readonly ModelVcpu[],
    devices: ModelDevices,
  ) {
    this.#base = base;
    this.#waits = waits;
    this.vcpus = vcpus;
    this.devices = devices;
  }

  /** Of a machine that has done a job on each vCPU, and waits. */
  static of(state: RawMachineState, waits: { first: bigint; end: bigint }): ModelState {
    const { serial, cmos } = state.devices;
    return new ModelState(state, waits, state.vcpus.map(modelVcpu), {
      scratch: serial!.scr as number,
      received: serial!.rx_count === 0 ? undefined : (serial!.rx_fifo as Uint8Array)[0],
      cmosIndex: cmos!.index as number,
      cmos: [...(cmos!.ram as Uint8Array).subarray(CMOS_FROM, CMOS_FROM + 16)],
    });
  }

  copy(): ModelState {
    return new ModelState(this.#base, this.#waits, structuredClone(this.vcpus), {
      ...this.devices,
      cmos: [...this.devices.cmos],
    });
  }

  /** What is wrong in a machine's state, if anything. */
  fault(state: RawMachineState): string | undefined {
    const wrong = differences(...onlyDifferent(this.#expected(), this.#standing(state)));
    return wrong.length === 0
      ? undefined
      : wrong
          .slice(0, 8)
          .map(({ path, before, after }) => `${path} is ${after}, not ${before}`)
          .join('; ');
  }

  #expected(): RawMachineState {
    const { scratch, received, cmosIndex, cmos } = this.devices;
    const { serial, cmos: clock } = this.#base.devices;
    const fifo = new Uint8Array(16);
    if (received !== undefined) fifo[0] = received;
    const ram = Uint8Array.from(clock!.ram as Uint8Array);
    ram.set(cmos, CMOS_FROM);
    const rx_count = received === undefined ? 0 : 1;
    return this.#standing({
      vm: this.#base.vm,
      vcpus: this.#base.vcpus.map((raw, i) => rawVcpu(raw, this.vcpus[i] as ModelVcpu)),
      devices: {
        ...this.#base.devices,
        serial: { ...serial!, scr: scratch, rx_count, rx_fifo: fifo },
        cmos: { ...clock!, index: cmosIndex, ram },
      },
    });
  }

  /** The same as if all vCPUs stood at the first instruction where the guest waits, if they wait. */
  #standing(state: RawMachineState): RawMachineState {
    const { first, end } = this.#waits;
    const vcpus = state.vcpus.map((vcpu) => {
      const { rip, rflags } = VCPU_SECTIONS.regs.decode(vcpu.regs);
      const waiting = rip >= first && rip < end;
      const patch = { rflags: rflags & ~FLEETING_FLAGS, ...(waiting ? { rip: first } : {}) };
      return { ...vcpu, regs: VCPU_SECTIONS.regs.encode(patch, vcpu.regs) };
    });
    return { ...state, vcpus };
  }
}

/** Where CMOS RAM of address 0x40 is among that from 0x0E on. */
const CMOS_FROM = 0x40 - 0x0e;

const low = (bytes: Uint8Array): bigint => Buffer.from(bytes).readBigUInt64LE();

function withLow(bytes: Uint8Array, value: bigint): Uint8Array {
  const result = Buffer.from(bytes);
  result.writeBigUInt64LE(value);
  return result;
}

function modelVcpu(raw: RawVcpuState): ModelVcpu {
  const { rax, rbx, rcx, rdx, r8, r9, r10, r11, r13 } = VCPU_SECTIONS.regs.decode(raw.regs);
  const { xmm } = VCPU_SECTIONS.xsave2.decode(raw.xsave2).legacy;
  const gs = VCPU_SECTIONS.msrs.decode(raw.msrs).find(({ index }) => index === KERNEL_GS_BASE);
  return {
    regs: { rax, rbx, rcx, rdx, r8, r9, r10, r11, r13 },
    xmm0: low(xmm[0]!),
    xmm1: low(xmm[1]!),
    kernelGsBase: gs!.data,
    dr0: VCPU_SECTIONS.debugregs.decode(raw.debugregs).db[0]!,
  };
}

function rawVcpu(raw: RawVcpuState, model: ModelVcpu): RawVcpuState {
  const { legacy } = VCPU_SECTIONS.xsave2.decode(raw.xsave2);
  const [first, second, ...others] = legacy.xmm as [Uint8Array, Uint8Array, ...Uint8Array[]];
  const xmm = [withLow(first, model.xmm0), withLow(second, model.xmm1), ...others];
  const { db } = VCPU_SECTIONS.debugregs.decode(raw.debugregs);
  const msrs = VCPU_SECTIONS.msrs
    .decode(raw.msrs)
    .map((msr) => (msr.index === KERNEL_GS_BASE ? { ...msr, data: model.kernelGsBase } : msr));
  return {
    ...raw,
    regs: VCPU_SECTIONS.regs.encode(model.regs, raw.regs),
    xsave2: VCPU_SECTIONS.xsave2.encode({ legacy: { xmm } }, raw.xsave2),
    debugregs: VCPU_SECTIONS.debugregs.encode({ db: [model.dr0, ...db.slice(1)] }, raw.debugregs),
    msrs: encodeMsrs(msrs),
  };
}

const NOTHING = new Uint8Array(0);

/** Without the sections whose bytes are equal, which take long to decode. */
function onlyDifferent(a: RawMachineState, b: RawMachineState): [RawMachineState, RawMachineState] {
  const pairs = a.vcpus.map((vcpu, i) => withoutEqual(vcpu, b.vcpus[i] as RawVcpuState));
  return [
    { ...a, vcpus: pairs.map(([first]) => first) },
    { ...b, vcpus: pairs.map(([, second]) => second) },
  ];
}

function withoutEqual(a: RawVcpuState, b: RawVcpuState): [RawVcpuState, RawVcpuState] {
  const [first, second] = [{ ...a }, { ...b }];
  for (const name of Object.keys(VCPU_SECTIONS) as (keyof typeof VCPU_SECTIONS)[]) {
    if (Buffer.compare(a[name] ?? NOTHING, b[name] ?? NOTHING) === 0)
      first[name] = second[name] = NOTHING;
  }
  return [first, second];
}

/** The job, as native/guest/jobs.S does it, on memory and state alike. */
export interface Job {
  vcpu: number;
  /** Address of the first word. */
  base: number;
  /** Bytes from one word to the next. */
  stride: number;
  count: number;
  seed: bigint;
  /** What starts it. */
  command: bigint;
}

const FACTOR = 6364136223846793005n;
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

export function applyJob(
  job: Job,
  words: { word(gpa: number): bigint; setWord(gpa: number, value: bigint): void },
  state: ModelState,
): void {
  const vcpu = state.vcpus[job.vcpu] as ModelVcpu;
  const { regs } = vcpu;
  for (let i = 0; i < job.count; i++) {
    const at = job.base + i * job.stride;
    regs.rbx = u64(regs.rbx * FACTOR + words.word(at) + job.seed);
    words.setWord(at, regs.rbx);
  }
  vcpu.xmm0 = regs.rbx;
  vcpu.xmm1 = u64(vcpu.xmm1 + regs.rbx);
  const bits = Number(regs.rbx & 0xffffn);
  const index = 0x40 + (bits & 15);
  state.devices.scratch = bits & 0xff;
  state.devices.cmosIndex = index;
  state.devices.cmos = state.devices.cmos.with(index - 0x40, bits >> 8);
  Object.assign(regs, {
    rax: (regs.rbx & 0xffffffffn) >> 8n,
    rcx: job.command,
    rdx: BigInt(ABI.PORT_PASS),
    r8: BigInt(job.base + job.count * job.stride),
    r9: BigInt(job.stride),
    r10: 0n,
    r11: job.seed,
  });
}
