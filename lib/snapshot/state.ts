/**
 * The state blob: CPU, VM and device state as versioned sections of raw kernel structs
 * (`<linux/kvm.h>`, x86-64), keyed by the structs' names. docs/format.md, "State".
 */
import { requireArgument } from '../errors.js';
import type {
  GuestStopReason,
  RawDeviceState,
  RawMachineState,
  RawStop,
  RawVcpuState,
  RawVmState,
} from '../native/binding.js';
import { type CborMap, type CborValue, cborSteps, encodeCbor, isMap } from './cbor.js';
import { formatError, versionError } from './failures.js';
import { LIMITS, STATE_VERSION } from './format.js';
import { finish, type Steps } from './steps.js';

const FORMAT = 'kvmsnap.state';
const WHAT = 'state';
/** Versions of the sections. A change of what a section holds raises its number. */
const VM_VERSION = 1;
const VCPU_VERSION = 1;
const DEVICE_VERSION = 1;
const STOPPED_VERSION = 1;

/** How many bytes a struct may have: `unit` times something from `min` to `max`. */
interface StructRule {
  key: string;
  unit: number;
  min: number;
  max: number;
  optional: boolean;
}
const exactly = (key: string, bytes: number, optional = false): StructRule => ({
  key,
  unit: bytes,
  min: 1,
  max: 1,
  optional,
});
const arrayOf = (key: string, unit: number, min: number, max: number): StructRule => ({
  key,
  unit,
  min,
  max,
  optional: false,
});

/** Field of the binding -> kernel struct and its length, in the order they are written. */
export const VCPU_STRUCTS = {
  // KVM_MAX_CPUID_ENTRIES is 256.
  cpuid2: arrayOf('kvm_cpuid_entry2[]', 40, 1, 256),
  regs: exactly('kvm_regs', 144),
  sregs2: exactly('kvm_sregs2', 320),
  // 4096 bytes, and more where AMX is there: u32 region[1024] and then u32 extra[].
  xsave2: arrayOf('kvm_xsave', 4, 1024, 16_384),
  xcrs: exactly('kvm_xcrs', 392),
  debugregs: exactly('kvm_debugregs', 128),
  msrs: arrayOf('kvm_msr_entry[]', 16, 0, 4096),
  lapic: exactly('kvm_lapic_state', 1024, true),
  vcpu_events: exactly('kvm_vcpu_events', 64),
  mp_state: exactly('kvm_mp_state', 4),
} as const satisfies Record<Exclude<keyof RawVcpuState, 'tsc_khz'>, StructRule>;

export const VM_STRUCTS = {
  pic_master: exactly('kvm_irqchip.pic_master', 520, true),
  pic_slave: exactly('kvm_irqchip.pic_slave', 520, true),
  ioapic: exactly('kvm_irqchip.ioapic', 520, true),
  pit2: exactly('kvm_pit_state2', 112, true),
  clock: exactly('kvm_clock_data', 48),
} as const satisfies Record<keyof RawVmState, StructRule>;

const TSC_KHZ = 'tsc_khz';
const DEVICE_NAME = /^[A-Za-z][A-Za-z0-9_.:-]{0,63}$/;
const FIELD_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
const MAX_DEVICES = 256;
const MAX_FIELDS = 256;
const MAX_FIELD_BYTES = 16 * 1024 * 1024;

/** State to bytes. `ERR_INVALID_ARGUMENT` when a struct does not have its kernel length. */
export function encodeState(state: RawMachineState): Uint8Array {
  const devices: CborMap = {};
  for (const [name, device] of Object.entries(state.devices)) {
    devices[name] = { version: DEVICE_VERSION, state: encodeDevice(name, device) };
  }
  const bytes = encodeCbor({
    format: FORMAT,
    version: STATE_VERSION,
    arch: 'x86_64',
    vm: { version: VM_VERSION, ...encodeStructs(VM_STRUCTS, state.vm, 'vm') },
    vcpus: state.vcpus.map((vcpu, i) => ({
      version: VCPU_VERSION,
      ...encodeStructs(VCPU_STRUCTS, vcpu, `vcpu ${i}`),
      [TSC_KHZ]: vcpu.tsc_khz,
    })),
    devices,
    ...(state.stopped ? { stopped: { version: STOPPED_VERSION, ...state.stopped } } : {}),
  });
  // What we could not read back must not become a snapshot.
  requireArgument(bytes.length <= LIMITS.state, `state has ${bytes.length} bytes, too many`);
  try {
    decodeState(bytes);
  } catch (cause) {
    requireArgument(false, `state cannot be saved: ${(cause as Error).message}`);
  }
  return bytes;
}

/** Bytes to state; `ERR_SNAPSHOT_FORMAT` for anything that is not exactly of the format. */
export function decodeState(bytes: Uint8Array): RawMachineState {
  return finish(stateSteps(bytes));
}

export function* stateSteps(bytes: Uint8Array): Steps<RawMachineState> {
  const root = requireMap(yield* cborSteps(bytes, WHAT), WHAT);
  if (root.format !== FORMAT) throw formatError(WHAT, `format is not ${FORMAT}`);
  requireVersion(root, STATE_VERSION, WHAT);
  requireKeys(root, ['format', 'version', 'arch', 'vm', 'vcpus', 'devices', 'stopped'], WHAT);
  if (root.arch !== 'x86_64') throw formatError(WHAT, 'arch is not x86_64');
  const vm = section(root.vm, VM_VERSION, 'vm section');
  requireKeys(vm, ['version', ...keysOf(VM_STRUCTS)], 'vm section');
  return {
    vm: decodeStructs(VM_STRUCTS, vm, 'vm section') as unknown as RawVmState,
    vcpus: yield* decodeVcpus(root.vcpus),
    devices: yield* decodeDevices(root.devices),
    ...(root.stopped === undefined ? {} : { stopped: decodeStopped(root.stopped) }),
  };
}

const STOP_REASONS = [
  'exit-port',
  'reset',
  'shutdown',
  'power-off',
  'halt',
] as const satisfies GuestStopReason[];

function decodeStopped(value: CborValue): RawStop {
  const what = 'stopped section';
  const map = section(value, STOPPED_VERSION, what);
  requireKeys(map, ['version', 'reason', 'code'], what);
  const reason = STOP_REASONS.find((known) => known === map.reason);
  if (reason === undefined) throw formatError(what, 'it has no reason that a guest can have');
  const { code } = map;
  if ((code !== undefined) !== (reason === 'exit-port')) {
    throw formatError(what, 'it has a code if and only if the reason is exit-port');
  }
  if (code === undefined) return { reason };
  if (typeof code !== 'number' || code < 0 || code > 0xffffffff) {
    throw formatError(what, 'code is not a 32-bit unsigned integer');
  }
  return { reason, code };
}

function* decodeVcpus(value: CborValue | undefined): Steps<RawVcpuState[]> {
  if (!Array.isArray(value) || value.length === 0 || value.length > LIMITS.vcpus) {
    throw formatError(WHAT, `vcpus is not an array of 1 to ${LIMITS.vcpus}`);
  }
  const vcpus: RawVcpuState[] = [];
  for (const [i, item] of value.entries()) {
    yield;
    const what = `vcpu ${i} section`;
    const map = section(item, VCPU_VERSION, what);
    requireKeys(map, ['version', ...keysOf(VCPU_STRUCTS), TSC_KHZ], what);
    const tscKhz = map[TSC_KHZ];
    if (typeof tscKhz !== 'number' || tscKhz < 0 || tscKhz > 0xffffffff) {
      throw formatError(what, `${TSC_KHZ} is not a 32-bit unsigned integer`);
    }
    const structs = decodeStructs(VCPU_STRUCTS, map, what);
    vcpus.push({ ...structs, tsc_khz: tscKhz } as unknown as RawVcpuState);
  }
  return vcpus;
}

function* decodeDevices(value: CborValue | undefined): Steps<Record<string, RawDeviceState>> {
  const map = requireMap(value, 'devices section');
  const devices: Record<string, RawDeviceState> = {};
  for (const [name, item] of entries(map, MAX_DEVICES, 'devices section')) {
    yield;
    if (!DEVICE_NAME.test(name)) throw formatError('devices section', 'a bad device name');
    const what = `device ${name}`;
    const device = section(item, DEVICE_VERSION, what);
    requireKeys(device, ['version', 'state'], what);
    const fields: RawDeviceState = {};
    for (const [field, content] of entries(requireMap(device.state, what), MAX_FIELDS, what)) {
      if (!FIELD_NAME.test(field)) throw formatError(what, 'a bad field name');
      if (typeof content === 'string' || typeof content === 'object') {
        if (!(content instanceof Uint8Array) || content.length > MAX_FIELD_BYTES) {
          throw formatError(what, `field ${field} is not a number or short byte string`);
        }
      }
      fields[field] = content;
    }
    devices[name] = fields;
  }
  return devices;
}

function encodeDevice(name: string, device: RawDeviceState): CborMap {
  const fields: CborMap = {};
  for (const [field, value] of Object.entries(device)) {
    // A number above 32 bits would come back as a bigint: the field must be one from the start.
    requireArgument(
      typeof value !== 'number' || (Number.isInteger(value) && Math.abs(value) <= 0xffffffff),
      `device ${name}: ${field} is not a 32-bit integer; 64-bit fields are bigint`,
    );
    fields[field] = value instanceof Uint8Array ? plainBytes(value) : value;
  }
  return fields;
}

type Structs = Record<string, StructRule>;

function encodeStructs(rules: Structs, from: object, what: string): CborMap {
  const out: CborMap = {};
  for (const [field, rule] of Object.entries(rules)) {
    const bytes = (from as Record<string, Uint8Array | undefined>)[field];
    if (bytes === undefined && rule.optional) continue;
    requireArgument(
      bytes instanceof Uint8Array && fits(rule, bytes.length),
      `${what}: ${field} does not have the length of ${rule.key}`,
    );
    out[rule.key] = plainBytes(bytes);
  }
  return out;
}

function decodeStructs(rules: Structs, map: CborMap, what: string): Record<string, Uint8Array> {
  const out: Record<string, Uint8Array> = {};
  for (const [field, rule] of Object.entries(rules)) {
    const bytes = map[rule.key];
    if (bytes === undefined && rule.optional) continue;
    if (!(bytes instanceof Uint8Array) || !fits(rule, bytes.length)) {
      throw formatError(what, `${rule.key} does not have the length of the kernel struct`);
    }
    out[field] = bytes;
  }
  return out;
}

const fits = (rule: StructRule, bytes: number): boolean =>
  bytes % rule.unit === 0 && bytes >= rule.unit * rule.min && bytes <= rule.unit * rule.max;

const keysOf = (rules: Structs): string[] => Object.values(rules).map((rule) => rule.key);

/** Subclasses of Uint8Array (Buffer) encode alike, so that equal state gives equal blobs. */
const plainBytes = (bytes: Uint8Array): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function section(value: CborValue | undefined, known: number, what: string): CborMap {
  const map = requireMap(value, what);
  requireVersion(map, known, what);
  return map;
}

function requireMap(value: CborValue | undefined, what: string): CborMap {
  if (!isMap(value)) throw formatError(what, 'not a map');
  return value;
}

function requireVersion(map: CborMap, known: number, what: string): void {
  const { version } = map;
  if (typeof version !== 'number' || version < 1) throw formatError(what, 'it has no version');
  if (version > known) throw versionError(what, version, known);
}

function requireKeys(map: CborMap, known: readonly string[], what: string): void {
  for (const key in map) {
    if (!known.includes(key)) {
      throw formatError(what, `unknown key ${JSON.stringify(key).slice(0, 80)}`);
    }
  }
}

function entries(map: CborMap, limit: number, what: string): [string, CborValue][] {
  const list = Object.entries(map);
  if (list.length > limit) throw formatError(what, `more than ${limit} entries`);
  return list;
}
