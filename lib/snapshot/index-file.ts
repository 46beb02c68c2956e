/** `index.json` and `oci-layout`: names of snapshots. Reading them never needs the store's lock. */
import { join } from 'node:path';
import { readBlob, readBlobByDigest, readFile, readSmallFile } from './blobs.js';
import { checkEach, checkShape, formatError, missingError } from './failures.js';
import {
  ANNOTATION_REF_NAME,
  ARTIFACT_TYPE,
  descriptorSchema,
  type Index,
  type IndexEntry,
  indexEntrySchema,
  indexSchema,
  isDigest,
  isRefName,
  LIMITS,
  layoutSchema,
  type Manifest,
  MEDIA_TYPE_OCI_INDEX,
  MEDIA_TYPE_OCI_MANIFEST,
  manifestSchema,
} from './format.js';
import { jsonSteps, parseJson } from './json.js';
import type { Reading } from './reading.js';

export const LAYOUT_FILE = 'oci-layout';
export const INDEX_FILE = 'index.json';

export const emptyIndex = (): Index => ({
  schemaVersion: 2,
  mediaType: MEDIA_TYPE_OCI_INDEX,
  manifests: [],
});

export function checkLayoutFile(store: string): void {
  const bytes = readSmallFile(
    join(store, LAYOUT_FILE),
    LIMITS.layoutFile,
    `${store} is not a snapshot store: it has no ${LAYOUT_FILE} file. Check the path.`,
  );
  checkShape(layoutSchema, parseJson(bytes, LAYOUT_FILE), LAYOUT_FILE);
}

export async function readIndex(reading: Reading): Promise<Index> {
  const { store } = reading;
  const bytes = await readFile(reading, join(store, INDEX_FILE), LIMITS.indexFile, {
    what: INDEX_FILE,
    missing: `${store} is not a snapshot store: it has no ${INDEX_FILE} file. Check the path.`,
  });
  const json = await reading.run(jsonSteps(bytes, INDEX_FILE));
  const index = checkShape(indexSchema, json, INDEX_FILE);
  const entries = checkEach(indexEntrySchema, index.manifests, `${INDEX_FILE} manifests`);
  return { ...index, manifests: await reading.run(entries) };
}

export const tagOf = (entry: IndexEntry): string | undefined =>
  entry.annotations?.[ANNOTATION_REF_NAME];

/** May the entry be a snapshot? Tools that copy images drop `artifactType`: then its manifest says. */
export const mayBeSnapshot = (entry: IndexEntry): boolean =>
  entry.mediaType === MEDIA_TYPE_OCI_MANIFEST &&
  (entry.artifactType === undefined || entry.artifactType === ARTIFACT_TYPE) &&
  isDigest(entry.digest);

export interface Resolved {
  digest: string;
  /** Bytes of the manifest, where the index says. */
  size?: number;
  tag?: string;
}

/** A tag, or a manifest digest with or without a tag, to a manifest. */
export async function resolve(reading: Reading, ref: string): Promise<Resolved> {
  if (isDigest(ref)) return { digest: ref };
  const { store } = reading;
  const entries = entriesTagged(await readIndex(reading), ref, store);
  const [entry] = entries;
  if (!entry) {
    throw missingError(`no snapshot is tagged ${ref} in ${store}. List the store to see its tags.`);
  }
  if (entries.some(({ digest }) => digest !== entry.digest)) {
    throw formatError(INDEX_FILE, `tag ${ref} names several manifests; name one by its digest`);
  }
  if (!mayBeSnapshot(entry)) throw formatError(INDEX_FILE, `${ref} is not a kvmsnap snapshot`);
  return { digest: entry.digest, size: entry.size, tag: ref };
}

/** Entries with this tag; `ERR_SNAPSHOT_MISSING` for text that cannot be a tag. */
export function entriesTagged(index: Index, tag: string, store: string): IndexEntry[] {
  if (!isRefName(tag)) {
    throw missingError(`${JSON.stringify(tag).slice(0, 300)} is no tag or digest in ${store}`);
  }
  return index.manifests.filter((entry) => tagOf(entry) === tag);
}

export async function readManifest(
  reading: Reading,
  { digest, size }: Resolved,
): Promise<Manifest> {
  const bytes =
    size === undefined
      ? await readBlobByDigest(reading, digest, LIMITS.manifest, 'manifest')
      : await readBlob(reading, { digest, size }, LIMITS.manifest, 'manifest');
  const what = `manifest ${digest}`;
  const manifest = checkShape(
    manifestSchema,
    await reading.run(jsonSteps(bytes, 'manifest')),
    what,
  );
  const layers = await reading.run(checkEach(descriptorSchema, manifest.layers, `${what} layers`));
  return { ...manifest, layers };
}
