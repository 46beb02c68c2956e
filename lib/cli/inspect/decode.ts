/** A snapshot's state with every struct decoded: what `inspect --json` prints. */
import { type CpuidEntry, decodeCpuid } from '../../cpu/cpuid-entries.js';
import { KVM_MP_STATE_NAMES } from '../../cpu/events.js';
import { presentFeatures } from '../../cpu/features.js';
import { lapicVectors } from '../../cpu/lapic.js';
import { decodeMsrs, msrName } from '../../cpu/msrs.js';
import { VCPU_SECTIONS, VM_SECTIONS } from '../../cpu/sections.js';
import { KvmsnapError } from '../../errors.js';
import type {
  RawDeviceState,
  RawMachineState,
  RawVcpuState,
  RawVmState,
  VcpuSection,
} from '../../native/binding.js';
import { jsonValue } from '../output.js';

/** What JSON can hold. */
export type Plain = null | boolean | number | string | Plain[] | { [key: string]: Plain };
export type PlainObject = { [key: string]: Plain };

export interface DecodedVcpu {
  index: number;
  tscKhz: number;
  /** Features in the guest's CPUID, by name. */
  features: string[];
  /** By kernel name: `regs`, `sregs2`, …; a section that cannot be decoded has `problem` and `raw`. */
  sections: { [name: string]: Plain };
  msrs: { [name: string]: string };
}

export interface DecodedState {
  vm: { [name: string]: Plain };
  vcpus: DecodedVcpu[];
  devices: { [name: string]: PlainObject };
}

/** Times and counts, which people read in decimal; other 64-bit values are hexadecimal. */
const DECIMAL = new Set(['clock', 'realtime', 'host_tsc', 'count_load_time']);

export function decodeState(state: RawMachineState): DecodedState {
  return {
    vm: decodeVm(state.vm),
    vcpus: state.vcpus.map(decodeVcpu),
    devices: Object.fromEntries(
      Object.entries(state.devices).map(([name, device]) => [name, decodeDevice(device)]),
    ),
  };
}

function decodeVm(raw: RawVmState): { [name: string]: Plain } {
  const decoded: { [name: string]: Plain } = {};
  for (const [name, section] of Object.entries(VM_SECTIONS)) {
    const bytes = raw[name as keyof RawVmState];
    if (bytes) decoded[name] = orProblem(bytes, () => section.decode(bytes));
  }
  return decoded;
}

function decodeVcpu(raw: RawVcpuState, index: number): DecodedVcpu {
  const cpuid = decodeCpuid(raw.cpuid2);
  const sections: { [name: string]: Plain } = {};
  for (const name of Object.keys(VCPU_SECTIONS) as VcpuSection[]) {
    const bytes = raw[name];
    // MSRs are printed by name, apart.
    if (bytes && name !== 'msrs') {
      sections[name] = orProblem(bytes, () => decodeSection(name, bytes, cpuid));
    }
  }
  return {
    index,
    tscKhz: raw.tsc_khz,
    features: presentFeatures(cpuid),
    sections,
    msrs: Object.fromEntries(
      decodeMsrs(raw.msrs).map((entry) => [msrName(entry.index), plain(entry.data) as string]),
    ),
  };
}

function decodeSection(name: VcpuSection, raw: Uint8Array, cpuid: readonly CpuidEntry[]): unknown {
  if (name === 'lapic') {
    const lapic = VCPU_SECTIONS.lapic.decode(raw);
    const { isr, tmr, irr } = lapic;
    return { ...lapic, isr: lapicVectors(isr), tmr: lapicVectors(tmr), irr: lapicVectors(irr) };
  }
  if (name === 'mp_state') {
    const { mp_state } = VCPU_SECTIONS.mp_state.decode(raw);
    return { mp_state, name: KVM_MP_STATE_NAMES[mp_state] ?? 'unknown' };
  }
  if (name === 'xcrs') {
    const { nr_xcrs, flags, xcrs } = VCPU_SECTIONS.xcrs.decode(raw);
    return { flags, xcrs: xcrs.slice(0, nr_xcrs) };
  }
  return VCPU_SECTIONS[name].decode(raw, cpuid);
}

/** A snapshot is hostile input: a struct of the right length may still make no sense. */
function orProblem(raw: Uint8Array, decode: () => unknown): Plain {
  try {
    return plain(decode());
  } catch (error) {
    if (!(error instanceof KvmsnapError)) throw error;
    return { problem: error.message, raw: Buffer.from(raw).toString('hex') };
  }
}

const decodeDevice = (device: RawDeviceState): PlainObject => plain(device) as PlainObject;

/** 64-bit integers and bytes as text. */
function plain(value: unknown, key = ''): Plain {
  if (typeof value === 'bigint') {
    return DECIMAL.has(key) ? value.toString() : (jsonValue(key, value) as string);
  }
  if (value instanceof Uint8Array) return jsonValue(key, value) as string;
  if (Array.isArray(value)) return value.map((item) => plain(item));
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([name, item]) => [name, plain(item, name)]),
    );
  }
  return value as Plain;
}
