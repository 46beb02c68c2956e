import { describe, expect, it } from 'vitest';
import { type AcpiDevice, acpiTables } from '../../../lib/boot/acpi/tables.js';

const BASE = 0xe0000n;
const virtio: AcpiDevice = {
  name: 'V000',
  hid: 'LNRO0005',
  uid: 7,
  memory: [{ base: 0xd0000000, length: 0x1000 }],
  interrupts: [{ gsi: 5 }],
};

const make = (vcpus: number, devices: AcpiDevice[] = []) => {
  const { bytes, rsdp } = acpiTables({ base: BASE, vcpus, devices });
  return { memory: Buffer.from(bytes), rsdp };
};
const sum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => total + byte, 0) & 0xff;

/** Follows the pointers as an operating system does; every table must add up to 0. */
function walk(memory: Buffer): Map<string, Buffer> {
  const rsdp = memory.subarray(0, 36);
  expect(rsdp.subarray(0, 8).toString()).toBe('RSD PTR ');
  expect(sum(rsdp.subarray(0, 20))).toBe(0);
  expect(sum(rsdp)).toBe(0);
  expect(rsdp[15]).toBe(2);
  const tables = new Map<string, Buffer>();
  const at = (address: bigint): Buffer => {
    const offset = Number(address - BASE);
    const table = memory.subarray(offset, offset + memory.readUInt32LE(offset + 4));
    expect(sum(table)).toBe(0);
    tables.set(table.subarray(0, 4).toString(), table);
    return table;
  };
  const xsdt = at(rsdp.readBigUInt64LE(24));
  for (let i = 36; i < xsdt.length; i += 8) at(xsdt.readBigUInt64LE(i));
  at(tables.get('FACP')!.readBigUInt64LE(140));
  return tables;
}

interface Term {
  /** Path in the namespace, for example `_SB.COM1._CRS`. */
  path: string;
  value: unknown;
}

/** A recursive-descent reader of the AML that describes fixed devices. */
function readAml(aml: Buffer): Term[] {
  const terms: Term[] = [];
  const length = (at: number): { end: number; next: number } => {
    const extra = aml[at]! >> 6;
    let value = extra ? aml[at]! & 0xf : aml[at]! & 0x3f;
    for (let i = 0; i < extra; i++) value |= aml[at + 1 + i]! << (4 + 8 * i);
    return { end: at + value, next: at + 1 + extra };
  };
  const segment = (at: number): { name: string; next: number } => {
    const start = aml[at] === 0x5c ? at + 1 : at;
    return { name: aml.subarray(start, start + 4).toString(), next: start + 4 };
  };
  const data = (at: number): { value: unknown; next: number } => {
    const op = aml[at];
    if (op === 0 || op === 1) return { value: op, next: at + 1 };
    if (op === 0x0a) return { value: aml[at + 1], next: at + 2 };
    if (op === 0x0b) return { value: aml.readUInt16LE(at + 1), next: at + 3 };
    if (op === 0x0c) return { value: aml.readUInt32LE(at + 1), next: at + 5 };
    if (op === 0x0d) {
      const end = aml.indexOf(0, at);
      return { value: aml.subarray(at + 1, end).toString(), next: end + 1 };
    }
    if (op === 0x11) {
      const { end, next } = length(at + 1);
      const size = data(next);
      const value = aml.subarray(size.next, end);
      expect(value.length).toBe(size.value);
      return { value, next: end };
    }
    if (op === 0x12) {
      const { end, next } = length(at + 1);
      const values: unknown[] = [];
      for (let i = next + 1; i < end; ) {
        const element = data(i);
        values.push(element.value);
        i = element.next;
      }
      expect(values.length).toBe(aml[next]);
      return { value: values, next: end };
    }
    throw new Error(`unknown AML opcode ${op} at ${at}`);
  };
  const list = (from: number, end: number, parent: string): void => {
    let at = from;
    while (at < end) {
      const container = aml[at] === 0x10 ? at + 1 : aml[at] === 0x5b ? at + 2 : undefined;
      if (container !== undefined) {
        const body = length(container);
        const { name, next } = segment(body.next);
        list(next, body.end, `${parent}${name}.`);
        at = body.end;
        continue;
      }
      if (aml[at] === 0x14) {
        const body = length(at + 1);
        const { name, next } = segment(body.next);
        terms.push({ path: parent + name, value: aml.subarray(next, body.end) });
        at = body.end;
        continue;
      }
      expect(aml[at]).toBe(0x08);
      const { name, next } = segment(at + 1);
      const { value, next: after } = data(next);
      terms.push({ path: parent + name, value });
      at = after;
    }
    expect(at).toBe(end);
  };
  list(36, aml.length, '');
  return terms;
}

const namesOf = (memory: Buffer): Map<string, unknown> =>
  new Map(readAml(walk(memory).get('DSDT')!).map(({ path, value }) => [path, value]));
const namespace = (vcpus: number, devices: AcpiDevice[] = []): Map<string, unknown> =>
  namesOf(make(vcpus, devices).memory);

describe('tables', () => {
  it.each([1, 2, 255])('are whole and reachable from the RSDP with %i vCPUs', (vcpus) => {
    const { memory, rsdp } = make(vcpus);
    expect(rsdp).toBe(BASE);
    expect([...walk(memory).keys()].sort()).toEqual(['APIC', 'DSDT', 'FACP', 'XSDT']);
    expect(memory.length).toBeLessThan(0x20000);
  });
});

describe('FADT', () => {
  const fadt = walk(make(1).memory).get('FACP')!;
  const port = (at: number) => ({
    space: fadt[at],
    width: fadt[at + 1],
    address: fadt.readBigUInt64LE(at + 4),
  });

  it('is of revision 6 and hardware-reduced', () => {
    expect(fadt.length).toBe(276);
    expect(fadt[8]).toBe(6);
    expect(fadt.readUInt32LE(112) & (1 << 20)).toBeTruthy();
  });

  it('says how to reset and to power off', () => {
    expect(fadt.readUInt32LE(112) & (1 << 10)).toBeTruthy();
    expect(port(116)).toEqual({ space: 1, width: 8, address: 0xcf9n });
    expect(fadt[128]).toBe(0x06);
    expect(port(244)).toEqual({ space: 1, width: 8, address: 0x600n });
    expect(port(256)).toEqual({ space: 1, width: 8, address: 0x601n });
  });

  it('says that there is an RTC and no keyboard controller', () => {
    const boot = fadt.readUInt16LE(109);
    expect(boot & (1 << 1)).toBe(0);
    expect(boot & (1 << 5)).toBe(0);
  });
});

describe('MADT', () => {
  it.each([1, 3, 255])('names %i processors, the IOAPIC and the serial interrupt', (vcpus) => {
    const madt = walk(make(vcpus).memory).get('APIC')!;
    expect(madt.readUInt32LE(36)).toBe(0xfee00000);
    const entries: Buffer[] = [];
    for (let at = 44; at < madt.length; at += madt[at + 1]!) {
      entries.push(madt.subarray(at, at + madt[at + 1]!));
    }
    const processors = entries.filter(([type]) => type === 0);
    expect(processors.map((entry) => entry[3])).toEqual([...Array(vcpus).keys()]);
    expect(processors.every((entry) => entry.readUInt32LE(4) === 1)).toBe(true);
    const ioapics = entries.filter(([type]) => type === 1);
    expect(ioapics.map((entry) => [entry.readUInt32LE(4), entry.readUInt32LE(8)])).toEqual([
      [0xfec00000, 0],
    ]);
    const overrides = entries.filter(([type]) => type === 2);
    expect(overrides.map((entry) => [entry[3], entry.readUInt32LE(4)])).toEqual([[4, 4]]);
    const nmi = entries.filter(([type]) => type === 4);
    expect(nmi.map((entry) => [entry[2], entry[5]])).toEqual([[0xff, 1]]);
  });
});

describe('DSDT', () => {
  it('has \\_S5, COM1 with IRQ 4 and the RTC', () => {
    const names = namespace(1);
    expect(names.get('_S5_')).toEqual([5, 0, 0, 0]);
    expect(names.get('_SB_.COM1._HID')).toBe(0x0105d041);
    const crs = names.get('_SB_.COM1._CRS') as Buffer;
    expect(crs.subarray(0, 8).toString('hex')).toBe('4701f803f8030108');
    expect(crs.subarray(8, 17).toString('hex')).toBe('890600030104000000');
    expect(crs.subarray(17).toString('hex')).toBe('7900');
    expect(names.get('_SB_.RTC0._HID')).toBe(0x000bd041);
  });

  it('has a device for each processor, paired with the MADT by _UID', () => {
    const names = namespace(255);
    for (const id of [0, 1, 2, 254]) {
      const name = `C${id.toString(16).toUpperCase().padStart(3, '0')}`;
      expect(names.get(`_SB_.${name}._HID`)).toBe('ACPI0007');
      expect(names.get(`_SB_.${name}._UID`)).toBe(id);
    }
  });

  it('describes added devices with their memory and interrupt', () => {
    const names = namespace(1, [virtio]);
    expect(names.get('_SB_.V000._HID')).toBe('LNRO0005');
    expect(names.get('_SB_.V000._UID')).toBe(7);
    const crs = names.get('_SB_.V000._CRS') as Buffer;
    expect(crs.subarray(0, 12).toString('hex')).toBe('86090001000000d000100000');
    expect(crs.subarray(12, 21).toString('hex')).toBe('890600030105000000');
  });

  it('describes a VM generation ID, and an event device that tells of it', () => {
    const options = { base: BASE, vcpus: 1, devices: [] };
    const at = { gpa: 0x1_0000_2028n, gsi: 23 };
    const { bytes } = acpiTables({ ...options, generationId: at });
    const names = namesOf(Buffer.from(bytes));
    expect(names.get('_SB_.VGEN._CID')).toEqual(['VM_Gen_Counter', 'VMGENCTR']);
    expect(names.get('_SB_.VGEN._DDN')).toBe('VM_Gen_Counter');
    expect(names.get('_SB_.VGEN.ADDR')).toEqual([0x2028, 1]);
    expect(names.get('_SB_.GED0._HID')).toBe('ACPI0013');
    // Edge, active high, of input 23.
    const crs = names.get('_SB_.GED0._CRS') as Buffer;
    expect(crs.subarray(0, 9).toString('hex')).toBe('890600030117000000');
    // One argument, serialized: If (Arg0 == 23) { Notify (VGEN, 0x80) }.
    const evt = names.get('_SB_.GED0._EVT') as Buffer;
    expect(evt.toString('hex')).toBe('09a00c93680a17865647454e0a80');
    expect(namespace(1).has('_SB_.VGEN.ADDR')).toBe(false);
  });

  it('holds so many devices that its lengths take three bytes', () => {
    const devices = Array.from({ length: 300 }, (_, i) => ({
      ...virtio,
      name: `V${i.toString(16).toUpperCase().padStart(3, '0')}`,
      uid: i,
    }));
    const names = namespace(1, devices);
    expect(names.get('_SB_.V12B._UID')).toBe(299);
  });

  it.each<[string, Partial<AcpiDevice>]>([
    ['a reserved name', { name: 'COM1' }],
    ['the name of the event device', { name: 'GED0' }],
    ['a name that is none', { name: 'v000' }],
    ['a hardware ID that is none', { hid: 'virtio' }],
    ['an interrupt that the IOAPIC has not', { interrupts: [{ gsi: 24 }] }],
    ['memory above 4 GiB', { memory: [{ base: 0x100000000, length: 4096 }] }],
    ['a fractional address', { memory: [{ base: 0.5, length: 4096 }] }],
    ['ports beyond the last', { ports: [{ base: 0xffff, length: 2 }] }],
    ['a fractional _UID', { uid: 0.5 }],
  ])('refuses a device with %s', (_, wrong) => {
    expect(() => make(1, [{ ...virtio, ...wrong }])).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it('refuses a name used twice', () => {
    expect(() => make(1, [virtio, { ...virtio, uid: 8 }])).toThrow(/taken/);
  });
});
