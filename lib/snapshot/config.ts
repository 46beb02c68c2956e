/**
 * The config blob: what machine a snapshot is of, where it was taken, and what it needs.
 * docs/format.md, "Config".
 */
import { z } from 'zod';
import { requireArgument } from '../errors.js';
import type { NativeDevices } from '../native/binding.js';
import { PAGE_SIZE } from '../units.js';
import { checkShape, formatError, versionError } from './failures.js';
import { digestSchema, LAYOUT_VERSION, LIMITS, STATE_VERSION } from './format.js';
import { jsonSteps } from './json.js';
import type { MemoryRegion } from './memory-index.js';
import { finish, type Steps } from './steps.js';

const WHAT = 'config';
const GENERATION_ID_BYTES = 16;
/** No array of a config has more items than there are names of features. */
const MOST_ITEMS = 4096;
const pages = z.int().nonnegative().multipleOf(PAGE_SIZE).max(LIMITS.guestAddress);
const text = z.string().max(4096);

/**
 * Everything in `machine` must be understood to restore it, so a key that this release does not know
 * is refused: unlike elsewhere in the config, where unknown keys are skipped.
 */
const machineSchema = z.strictObject({
  vcpus: z.int().min(1).max(LIMITS.vcpus),
  memory: z.strictObject({
    /** In order of gpa. JSON numbers: guest addresses are below 2^52. */
    regions: z
      .array(
        z.strictObject({
          slot: z.int().min(0).max(32_767),
          gpa: pages,
          size: pages.positive(),
        }),
      )
      .min(1)
      .max(LIMITS.regions),
  }),
  /** In-kernel PIC, IOAPIC, LAPIC and PIT. */
  irqchip: z.boolean(),
  /** Where the VM generation ID lies, and which input of the IOAPIC says that it has changed. */
  generationId: z
    .strictObject({
      gpa: z.int().nonnegative().multipleOf(8).max(LIMITS.guestAddress),
      gsi: z.int().min(0).max(23).optional(),
    })
    .optional(),
  devices: z.strictObject({
    serial: z.boolean(),
    i8042: z.boolean(),
    debugPort: z.boolean(),
    /** 0: none. */
    exitPort: z.int().min(0).max(0xffff),
    cmos: z.boolean(),
    acpiPower: z.boolean(),
  }) satisfies z.ZodType<NativeDevices>,
});
export type MachineDescription = z.infer<typeof machineSchema>;

/** Facts about the host that took the snapshot: for messages and research, not for restoring. */
const hostSchema = z.looseObject({
  cpu: z.looseObject({
    /** CPUID leaf 0, for example `GenuineIntel`. */
    vendor: text,
    /** CPUID leaf 1 EAX, display family and model. */
    family: z.int().nonnegative(),
    model: z.int().nonnegative(),
    stepping: z.int().nonnegative(),
    /** Names of the features that KVM offered there. */
    features: z.array(text).max(MOST_ITEMS),
  }),
  /** Host TSC frequency, kHz. */
  tscKhz: z.int().nonnegative(),
  /** `uname -r`. */
  kernel: text,
  kvm: z.looseObject({
    /** KVM_GET_API_VERSION. */
    apiVersion: z.int().nonnegative(),
    /** KVM_CHECK_EXTENSION by name. */
    capabilities: z.record(text, z.int()),
  }),
});
export type HostFacts = z.infer<typeof hostSchema>;

const configSchema = z.object({
  format: z.object({
    layout: z.int().min(1),
    state: z.int().min(1),
  }),
  product: z.object({ name: text, version: text }),
  /** RFC 3339. */
  created: z.iso.datetime({ offset: true }),
  architecture: text,
  /** Manifest digest of the snapshot that this one was taken against; it may be gone. */
  parent: digestSchema.nullable(),
  machine: machineSchema,
  host: hostSchema,
  /** Least KVM_CHECK_EXTENSION values that a restoring host must have. */
  requires: z.object({ capabilities: z.record(text, z.int()) }),
  annotations: z.record(text, z.string().max(65_536)),
});
const versionsSchema = configSchema.pick({ format: true });
export type SnapshotConfig = z.infer<typeof configSchema>;

/** What a caller says of a snapshot; the writer adds versions, product, parent. */
export interface SnapshotConfigInput {
  machine: MachineDescription;
  host: HostFacts;
  requires?: SnapshotConfig['requires'];
  /** Free text by key, kept with the snapshot. */
  annotations?: Record<string, string>;
  created?: Date;
}

/** Config to bytes. `ERR_INVALID_ARGUMENT` when it breaks a rule of the format. */
export function encodeConfig(
  input: SnapshotConfigInput,
  product: SnapshotConfig['product'],
  parent: string | null,
): { config: SnapshotConfig; bytes: Uint8Array } {
  const regions = [...input.machine.memory.regions].sort((a, b) => a.gpa - b.gpa);
  const config: SnapshotConfig = {
    format: { layout: LAYOUT_VERSION, state: STATE_VERSION },
    product,
    created: (input.created ?? new Date()).toISOString(),
    architecture: 'amd64',
    parent,
    machine: { ...input.machine, memory: { regions } },
    host: input.host,
    requires: input.requires ?? { capabilities: {} },
    annotations: input.annotations ?? {},
  };
  const bytes = Buffer.from(JSON.stringify(config, null, 2));
  requireArgument(bytes.length <= LIMITS.config, `the config has ${bytes.length} bytes, too many`);
  try {
    return { config: decodeConfig(bytes), bytes };
  } catch (cause) {
    requireArgument(false, `the machine cannot be described: ${(cause as Error).message}`);
  }
}

/** Bytes to config; `ERR_SNAPSHOT_FORMAT` for anything that breaks a rule of the format. */
export function decodeConfig(bytes: Uint8Array): SnapshotConfig {
  return finish(configSteps(bytes));
}

export function* configSteps(bytes: Uint8Array): Steps<SnapshotConfig> {
  const json = yield* jsonSteps(bytes, WHAT, MOST_ITEMS);
  yield;
  // Versions first: a newer config may have another shape.
  const { format } = checkShape(versionsSchema, json, WHAT);
  if (format.layout > LAYOUT_VERSION) {
    throw versionError('the snapshot', format.layout, LAYOUT_VERSION);
  }
  if (format.state > STATE_VERSION) {
    throw versionError('the state of the snapshot', format.state, STATE_VERSION);
  }
  const config = checkShape(configSchema, json, WHAT);
  let end = 0;
  for (const { gpa, size } of config.machine.memory.regions) {
    if (gpa < end) throw formatError(WHAT, 'memory regions overlap or are not in order');
    end = gpa + size;
  }
  requireGenerationId(config.machine);
  return config;
}

/** A restore writes there. */
function requireGenerationId({ generationId, irqchip, memory }: MachineDescription): void {
  if (generationId === undefined) return;
  const { gpa, gsi } = generationId;
  const inside = memory.regions.some(
    (region) => region.gpa <= gpa && gpa + GENERATION_ID_BYTES <= region.gpa + region.size,
  );
  if (!inside) throw formatError(WHAT, 'the VM generation ID does not lie in memory');
  if (gsi !== undefined && !irqchip) {
    throw formatError(WHAT, 'the VM generation ID has an interrupt, the machine no irqchip');
  }
}

/** The machine's memory regions with guest addresses as `bigint`. */
export function memoryRegions(machine: MachineDescription): MemoryRegion[] {
  return machine.memory.regions.map(({ slot, gpa, size }) => ({ slot, gpa: BigInt(gpa), size }));
}
