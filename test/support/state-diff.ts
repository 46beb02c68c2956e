/** Two machine states, compared field by field under the kernel's names. */
import { decodeCpuid } from '../../lib/cpu/cpuid-entries.js';
import { msrName } from '../../lib/cpu/msrs.js';
import { VCPU_SECTIONS, VM_SECTIONS } from '../../lib/cpu/sections.js';
import type { RawMachineState, RawVcpuState, VcpuSection } from '../../lib/native/binding.js';

export interface FieldDifference {
  /** For example `vcpu0.regs.rip` or `vm.pit2.channels[0].count`. */
  field: string;
  before: unknown;
  after: unknown;
}

/** Fields that go on by themselves while a machine stands still, each with its reason. */
export const MOVING_FIELDS: readonly { field: RegExp; reason: string }[] = [
  {
    field: /^vm\.clock\.(clock|realtime|host_tsc)$/,
    reason: 'KVM_GET_CLOCK tells the time of the call: kvmclock goes on from the value restored',
  },
  { field: /^vcpu\d+\.msrs\.IA32_TSC$/, reason: 'the TSC counts on from the value restored' },
];

type Fields = Map<string, unknown>;

/** The fields that differ, but those that {@link MOVING_FIELDS} names. */
export function stateDifferences(
  before: RawMachineState,
  after: RawMachineState,
  moving = MOVING_FIELDS,
): FieldDifference[] {
  const left = fieldsOf(before);
  const right = fieldsOf(after);
  return [...new Set([...left.keys(), ...right.keys()])]
    .filter((field) => !moving.some((each) => each.field.test(field)))
    .filter((field) => left.get(field) !== right.get(field))
    .map((field) => ({ field, before: left.get(field), after: right.get(field) }));
}

/** Every field of a state by its path. Byte strings are given in hexadecimal. */
export function fieldsOf(state: RawMachineState): Fields {
  const fields: Fields = new Map();
  for (const [name, section] of Object.entries(VM_SECTIONS)) {
    const raw = state.vm[name as keyof typeof VM_SECTIONS];
    if (raw) collect(fields, `vm.${name}`, section.decode(raw));
  }
  state.vcpus.forEach((vcpu, index) => {
    collectVcpu(fields, `vcpu${index}`, vcpu);
  });
  collect(fields, 'devices', state.devices);
  return fields;
}

function collectVcpu(fields: Fields, path: string, vcpu: RawVcpuState): void {
  const cpuid = decodeCpuid(vcpu.cpuid2);
  for (const name of Object.keys(VCPU_SECTIONS) as VcpuSection[]) {
    const raw = vcpu[name];
    if (!raw) continue;
    if (name === 'msrs') {
      // By name: which MSRs there are is a list that two states may have in any order.
      for (const { index, data } of VCPU_SECTIONS.msrs.decode(raw)) {
        fields.set(`${path}.msrs.${msrName(index)}`, data);
      }
    } else {
      collect(fields, `${path}.${name}`, VCPU_SECTIONS[name].decode(raw, cpuid));
    }
  }
  fields.set(`${path}.tsc_khz`, vcpu.tsc_khz);
}

function collect(fields: Fields, path: string, value: unknown): void {
  if (value instanceof Uint8Array) {
    fields.set(path, Buffer.from(value).toString('hex'));
  } else if (Array.isArray(value)) {
    value.forEach((item, index) => {
      collect(fields, `${path}[${index}]`, item);
    });
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) collect(fields, `${path}.${key}`, item);
  } else {
    fields.set(path, value);
  }
}
