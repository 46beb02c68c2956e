/**
 * Names, versions, limits and JSON shapes of the snapshot format. docs/format.md is the
 * specification; the OCI side is opencontainers/image-spec: image-layout.md, image-index.md,
 * manifest.md, descriptor.md, annotations.md.
 */
import { z } from 'zod';
import { GiB, MiB } from '../units.js';

export const OCI_LAYOUT_VERSION = '1.0.0';
export const MEDIA_TYPE_OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const MEDIA_TYPE_OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

export const ARTIFACT_TYPE = 'application/vnd.kvmsnap.snapshot.v1';
export const MEDIA_TYPE_CONFIG = 'application/vnd.kvmsnap.config.v1+json';
export const MEDIA_TYPE_STATE = 'application/vnd.kvmsnap.state.v1+cbor';
export const MEDIA_TYPE_MEMORY_INDEX = 'application/vnd.kvmsnap.memory.index.v1+cbor';
export const MEDIA_TYPE_WORKING_SET = 'application/vnd.kvmsnap.memory.workingset.v1+cbor';
export const MEDIA_TYPE_MEMORY = 'application/vnd.kvmsnap.memory.v1';

export const ANNOTATION_REF_NAME = 'org.opencontainers.image.ref.name';
export const ANNOTATION_CREATED = 'org.opencontainers.image.created';

/** Version of layout, manifest, config and memory index; of the state blob. They move apart. */
export const LAYOUT_VERSION = 1;
export const STATE_VERSION = 1;

/** Where this library keeps its lock and unfinished writes inside a store. */
export const PRIVATE_DIR = '.kvmsnap';

/** Limits, in bytes unless named otherwise. Sizes are checked before anything is read. */
export const LIMITS = {
  layoutFile: 4096,
  indexFile: MiB(4),
  /** Registries commonly refuse larger manifests. */
  manifest: MiB(4),
  config: MiB(1),
  state: MiB(64),
  memoryIndex: MiB(64),
  workingSet: MiB(17),
  memoryPart: GiB(1024),
  /** Levels of nesting in JSON and in CBOR. */
  depth: 16,
  /** Keys of an object in JSON, so that a check of its shape is short. */
  keys: 4096,
  /** Values in CBOR, arrays and maps among them: four times what the largest state has. */
  cborValues: 262_144,
  /** Memory layers of one snapshot: itself and its ancestors. */
  memoryLayers: 1024,
  /** Memory parts of one snapshot, over all its layers. */
  memoryParts: 16_384,
  /** Runs of pages in a working set. */
  workingSetRuns: 1_048_576,
  /** One past the highest guest address: x86-64 has at most 52 physical address bits. */
  guestAddress: 2 ** 52,
  vcpus: 4096,
  regions: 512,
} as const;

const DIGEST = /^sha256:[0-9a-f]{64}$/;
// image-spec annotations.md, the grammar of org.opencontainers.image.ref.name.
const REF_NAME = /^[A-Za-z0-9]+(?:(?:[-._:@+/]|--)[A-Za-z0-9]+)*$/;
// What is also a tag in the registry API (distribution-spec), so that every snapshot can be pushed.
const TAG = /^[A-Za-z0-9]+(?:(?:[-._]|--)[A-Za-z0-9]+)*$/;

export const isDigest = (text: string): boolean => DIGEST.test(text);
/** A name that may stand in an index written by any tool. */
export const isRefName = (text: string): boolean => text.length <= 255 && REF_NAME.test(text);
/** A name that this library gives: an OCI ref name that is also a registry tag. */
export const isTag = (text: string): boolean => text.length <= 128 && TAG.test(text);

const digest = z.string().regex(DIGEST, 'not sha256: and 64 lower-case hexadecimal digits');
const annotations = z.record(z.string(), z.string());
const byteCount = z.int().nonnegative();

/** image-spec descriptor.md. */
export const descriptorSchema = z.object({
  mediaType: z.string().min(1).max(255),
  digest,
  size: byteCount,
  artifactType: z.string().max(255).optional(),
  annotations: annotations.optional(),
});
export type Descriptor = z.infer<typeof descriptorSchema>;

/** image-spec image-layout.md, file `oci-layout`. */
export const layoutSchema = z.object({ imageLayoutVersion: z.literal(OCI_LAYOUT_VERSION) });

/**
 * `index.json`. Entries of other tools are kept as they are, so their descriptors are loose: other
 * digest algorithms, platforms, and the like are theirs.
 */
export const indexEntrySchema = z.looseObject({
  mediaType: z.string(),
  digest: z.string().max(512),
  size: byteCount,
  artifactType: z.string().optional(),
  annotations: annotations.optional(),
});
export type IndexEntry = z.infer<typeof indexEntrySchema>;

/** Without its entries, which are checked one by one. */
export const indexSchema = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.literal(MEDIA_TYPE_OCI_INDEX).optional(),
  manifests: z.array(z.unknown()),
});
export type Index = Omit<z.infer<typeof indexSchema>, 'manifests'> & { manifests: IndexEntry[] };

/**
 * A snapshot's manifest, without its layers, which are checked one by one: image-spec manifest.md,
 * "Guidelines for Artifact Usage".
 */
export const manifestSchema = z.object({
  schemaVersion: z.literal(2),
  mediaType: z.literal(MEDIA_TYPE_OCI_MANIFEST),
  artifactType: z.literal(ARTIFACT_TYPE),
  config: descriptorSchema.extend({ mediaType: z.literal(MEDIA_TYPE_CONFIG) }),
  layers: z.array(z.unknown()).max(2 + LIMITS.memoryLayers + LIMITS.memoryParts),
  annotations: annotations.optional(),
});
export type Manifest = Omit<z.infer<typeof manifestSchema>, 'layers'> & { layers: Descriptor[] };
export const digestSchema = digest;
