/** `index.json` and `oci-layout`: names of snapshots. Reading them never needs the store's lock. */
import { join } from 'node:path';
import { readBlob, readBlobByDigest, readSmallFile } from './blobs.js';
import { checkShape, formatError, missingError } from './failures.js';
import {
  ANNOTATION_REF_NAME,
  ARTIFACT_TYPE,
  type Index,
  type IndexEntry,
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
import { parseJson } from './json.js';

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

export function readIndex(store: string): Index {
  const bytes = readSmallFile(
    join(store, INDEX_FILE),
    LIMITS.indexFile,
    `${store} is not a snapshot store: it has no ${INDEX_FILE} file. Check the path.`,
  );
  return checkShape(indexSchema, parseJson(bytes, INDEX_FILE), INDEX_FILE);
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
export function resolve(store: string, ref: string): Resolved {
  if (isDigest(ref)) return { digest: ref };
  const entries = entriesTagged(readIndex(store), ref, store);
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

export function readManifest(store: string, { digest, size }: Resolved): Manifest {
  const bytes =
    size === undefined
      ? readBlobByDigest(store, digest, LIMITS.manifest, 'manifest')
      : readBlob(store, { digest, size }, LIMITS.manifest, 'manifest');
  return checkShape(manifestSchema, parseJson(bytes, 'manifest'), `manifest ${digest}`);
}
