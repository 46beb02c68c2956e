/**
 * The machine that `run` or `restore` is asked for, as text that can go to another process, and how
 * to make it.
 */
import { z } from 'zod';
import { KvmsnapError } from '../errors.js';
import { Snapshot, Vm } from '../index.js';
import { GUESTS, type GuestName, guestPath } from '../native/guests.js';

const path = z.string().min(1).max(4096);
const address = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform(BigInt);

/** Entries of each vCPU's dirty ring. */
const dirtyRing = z.int().positive().max(1_048_576).optional();

const shared = {
  /** Bytes. */
  memory: z.int().positive(),
  vcpus: z.int().positive(),
  irqchip: z.boolean(),
  dirtyRing,
  devices: z.strictObject({
    serial: z.boolean().optional(),
    i8042: z.boolean().optional(),
    debugPort: z.boolean().optional(),
    cmos: z.boolean().optional(),
    acpiPower: z.boolean().optional(),
    exitPort: z.int().min(0).max(0xffff).optional(),
  }),
};

export const DIFFERENCE_KINDS = [
  'architecture',
  'capability',
  'cpu-feature',
  'xsave',
  'tsc',
] as const;

export const specSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('linux'),
    ...shared,
    kernel: path,
    initrd: path.optional(),
    cmdline: z.string().max(65_536).optional(),
  }),
  z.strictObject({
    kind: z.literal('bare'),
    ...shared,
    image: path,
    mode: z.enum(['real', 'protected', 'long']),
    ring: z.union([z.literal(0), z.literal(3)]),
    entry: address.optional(),
    loadAddress: address.optional(),
  }),
  z.strictObject({
    kind: z.literal('snapshot'),
    store: path,
    ref: z.string().min(1).max(256),
    /** Of its store: see StoreLimits. */
    limits: z.record(z.string(), z.number().nonnegative()).optional(),
    /** All of it is read and compared first. */
    verify: z.boolean().optional(),
    ignore: z.array(z.enum(DIFFERENCE_KINDS)),
    identity: z
      .strictObject({
        generation: z.enum(['new', 'keep']).optional(),
        clock: z.enum(['host', 'keep']).optional(),
      })
      .optional(),
    dirtyRing,
    /** Memory comes on demand. */
    paging: z.strictObject({ prefetch: z.boolean(), record: z.boolean() }).optional(),
  }),
]);
export type MachineSpec = z.infer<typeof specSchema>;
/** As it goes to another process: addresses are decimal text. */
export type MachineSpecText = z.input<typeof specSchema>;

/** What the machine runs, in a few words. */
export function describeSpec(spec: MachineSpec): string {
  if (spec.kind === 'linux') return `linux ${spec.kernel}`;
  if (spec.kind === 'bare') return `${spec.mode} ring ${spec.ring} ${spec.image}`;
  return `snapshot ${spec.ref} of ${spec.store}`;
}

/** The machine, not started. */
export async function makeVm(spec: MachineSpec): Promise<Vm> {
  const tracking = spec.dirtyRing === undefined ? {} : { dirtyRing: spec.dirtyRing };
  if (spec.kind === 'snapshot') {
    const { ignore, limits = {}, paging, verify = false } = spec;
    using snapshot = await Snapshot.open(spec.store, spec.ref, { limits });
    const { generation, clock } = spec.identity ?? {};
    const identity = { ...(generation && { generation }), ...(clock && { clock }) };
    const more = { ...tracking, ...(paging ? { paging } : {}) };
    return await snapshot.restore({ ignore, identity, verify, ...more });
  }
  const devices = Object.fromEntries(
    Object.entries(spec.devices).filter(([, value]) => value !== undefined),
  );
  const { memory, vcpus, irqchip } = spec;
  const machine = { memory, vcpus, irqchip, devices, ...tracking };
  if (spec.kind === 'linux') {
    return Vm.create({
      ...machine,
      kernel: spec.kernel,
      ...(spec.initrd === undefined ? {} : { initrd: spec.initrd }),
      ...(spec.cmdline === undefined ? {} : { cmdline: spec.cmdline }),
    });
  }
  const { image, mode, ring, entry, loadAddress } = spec;
  return Vm.create({
    ...machine,
    bare: {
      image,
      mode,
      ring,
      ...(entry === undefined ? {} : { entry }),
      ...(loadAddress === undefined ? {} : { loadAddress }),
    },
  });
}

/** A guest of ours as a bare image, entered as its contract says. */
export function guestSpec(name: string, ring: 0 | 3 | undefined) {
  if (!Object.hasOwn(GUESTS, name)) {
    // Its message lists the names.
    guestPath(name as GuestName);
  }
  const guest: { mode: 'real' | 'protected' | 'long'; rings: readonly (0 | 3)[] } & {
    loadAddress?: bigint;
  } = GUESTS[name as GuestName];
  if (ring !== undefined && !guest.rings.includes(ring)) {
    throw new KvmsnapError(
      'ERR_INVALID_ARGUMENT',
      `the guest ${name} runs in ring ${guest.rings.join(' or ')}, not ${ring}`,
    );
  }
  return {
    image: guestPath(name as GuestName),
    mode: guest.mode,
    ring: ring ?? (guest.rings[0] as 0 | 3),
    ...(guest.loadAddress === undefined ? {} : { loadAddress: String(guest.loadAddress) }),
  };
}
