/** A snapshot for people to read. `inspect --json` has everything; here zeros are left out. */
import type { SnapshotConfig } from '../../snapshot/config.js';
import { formatBytes, hex, printable, table } from '../output.js';
import type { DecodedState, DecodedVcpu, Plain, PlainObject } from './decode.js';
import { grid, heading, isObject, isZero, leaves, structTable } from './text.js';

export interface Inspected {
  digest: string;
  tag?: string;
  config: SnapshotConfig;
  /** What restoring maps. */
  memory: { extents: number; bytes: number };
  /** What restoring on demand can fetch first. */
  workingSet?: { runs: number; pages: number };
  state: DecodedState;
}

export function renderInspected(inspected: Inspected): string {
  const { digest, tag, state } = inspected;
  return [
    `${tag === undefined ? '' : `${printable(tag)}  `}${printable(digest)}\n`,
    renderConfig(inspected),
    ...state.vcpus.map(renderVcpu),
    renderVm(state.vm),
    ...Object.entries(state.devices).map(
      ([name, device]) => heading(`Device ${name}`) + grid(leaves(device)),
    ),
  ].join('');
}

function renderConfig({ config, memory, workingSet }: Inspected): string {
  const { machine, host, product } = config;
  const { cpu } = host;
  const regions = machine.memory.regions.map(
    ({ slot, gpa, size }) => `slot ${slot}: ${formatBytes(size)} at ${hex(gpa)}`,
  );
  const devices = Object.entries(machine.devices)
    .filter(([, value]) => value !== false && value !== 0)
    .map(([name, value]) => (value === true ? name : `${name} ${hex(value as number)}`));
  const rows = [
    ['taken', `${config.created} by ${product.name} ${product.version}`],
    ['parent', config.parent ?? 'none'],
    ['host', `${cpu.vendor} family ${cpu.family} model ${cpu.model}, Linux ${host.kernel}`],
    ['vCPUs', `${machine.vcpus}`],
    ['irqchip', machine.irqchip ? 'PIC, IOAPIC, LAPIC, PIT' : 'none'],
    ['devices', devices.join(', ')],
    ...regions.map((region, i) => [i === 0 ? 'memory' : '', region]),
    ['content', `${formatBytes(memory.bytes)} in ${memory.extents} extents`],
    ...(workingSet
      ? [['working set', `${workingSet.pages} pages in ${workingSet.runs} runs`]]
      : []),
    ...Object.entries(config.annotations).map(([key, value]) => [`"${key}"`, value]),
  ];
  return table(rows, '  ');
}

function renderVcpu(vcpu: DecodedVcpu): string {
  const { index, tscKhz, sections, msrs, features } = vcpu;
  const mp = isObject(sections.mp_state) ? sections.mp_state.name : undefined;
  const title = `vCPU ${index}: ${String(mp ?? 'unknown')}, TSC ${tscKhz} kHz`;
  const { sregs2, mp_state: _, cpuid2: __, regs, ...others } = sections;
  return [
    heading(title),
    regs === undefined ? '' : grid(leaves(regs)),
    sregs2 === undefined ? '' : renderSregs(sregs2),
    ...Object.entries(others).map(([name, section]) => nonZero(`vCPU ${index} ${name}`, section)),
    heading(`vCPU ${index} MSRs`),
    grid(Object.entries(msrs)),
    heading(`vCPU ${index} CPUID features`),
    wrap(features),
  ].join('');
}

function renderSregs(sregs: Plain): string {
  if (!isObject(sregs)) return '';
  const entries = Object.entries(sregs);
  const segments = entries.filter(
    (entry): entry is [string, PlainObject] => isObject(entry[1]) && 'selector' in entry[1],
  );
  const rest = entries.filter(([name]) => !segments.some(([segment]) => segment === name));
  const inHex = segments.map(([name, { base, limit, selector, ...flags }]) => {
    const texts: PlainObject = {
      selector: hex(selector as number),
      base: base as Plain,
      limit: hex(limit as number),
    };
    return [name, { ...texts, ...flags }] as const;
  });
  return `${structTable(inHex)}${grid(leaves(Object.fromEntries(rest)))}`;
}

function renderVm(vm: DecodedState['vm']): string {
  return Object.entries(vm)
    .map(([name, section]) => (name === 'ioapic' ? renderIoapic(section) : nonZero(name, section)))
    .join('');
}

function renderIoapic(section: Plain): string {
  const ioapic = isObject(section) ? section.ioapic : undefined;
  if (!isObject(ioapic) || !Array.isArray(ioapic.redirtbl)) return nonZero('ioapic', section);
  const { redirtbl, ...rest } = ioapic;
  const pins = (redirtbl as PlainObject[]).map((entry, pin) => [`pin ${pin}`, entry] as const);
  return heading('ioapic') + grid(leaves(rest)) + structTable(pins);
}

function nonZero(title: string, section: Plain): string {
  // The bytes that could not be decoded are in the JSON.
  if (isObject(section) && 'problem' in section) {
    return `${heading(title)}  ${printable(String(section.problem))}\n`;
  }
  const fields = leaves(section).filter(([, value]) => !isZero(value));
  return heading(title) + (fields.length === 0 ? '  all zero\n' : grid(fields));
}

function wrap(words: readonly string[]): string {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < 96) lines[lines.length - 1] += ` ${word}`;
    else lines.push(`  ${word}`);
  }
  return lines.map((line) => `${printable(line)}\n`).join('');
}
