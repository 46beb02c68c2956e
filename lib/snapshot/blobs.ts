/**
 * Opening files of a store. A store is hostile: symbolic links are never followed, only regular
 * files of the expected size are read, sizes are capped before reading, and every small blob is
 * compared with its digest.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  type Stats,
} from 'node:fs';
import { join } from 'node:path';
import { corruptError, errnoCode, formatError, missingError, storeError } from './failures.js';
import { isDigest } from './format.js';

// Without O_NONBLOCK a named pipe in place of a blob would hang the caller.
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

export interface BlobRef {
  digest: string;
  /** Bytes. */
  size: number;
}

/** A blob that is open; whoever asked for it closes `fd`. */
export interface OpenBlob {
  path: string;
  fd: number;
  /** Bytes. */
  size: number;
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export const blobDirectory = (store: string): string => join(store, 'blobs', 'sha256');

/** The path of a blob. The digest is checked, so it cannot lead out of the store. */
export function blobPath(store: string, digest: string): string {
  if (!isDigest(digest)) throw formatError('digest', `${JSON.stringify(digest)} is not sha256`);
  return join(blobDirectory(store), digest.slice('sha256:'.length));
}

/** Refuses a store whose blob directories are symbolic links: O_NOFOLLOW guards the last name only. */
export function requireBlobDirectories(store: string): void {
  for (const path of [join(store, 'blobs'), blobDirectory(store)]) {
    let stats: Stats;
    try {
      stats = lstatSync(path);
    } catch (cause) {
      if (errnoCode(cause) === 'ENOENT') throw missingError(`${path} is missing`, cause);
      throw storeError(`reading ${path}`, cause);
    }
    if (!stats.isDirectory()) throw formatError(path, 'not a directory (links are not followed)');
  }
}

/** Opens a regular file, without following a link. `missing`: what its absence means to a caller. */
export function openRegular(path: string, missing: string): OpenBlob {
  let fd: number;
  try {
    fd = openSync(path, OPEN_FLAGS);
  } catch (cause) {
    const code = errnoCode(cause);
    if (code === 'ENOENT') throw missingError(missing, cause);
    if (code === 'ELOOP') throw formatError(path, 'a symbolic link, not a file', cause);
    if (code === 'ENXIO') throw formatError(path, 'not a regular file', cause);
    throw storeError(`opening ${path}`, cause);
  }
  try {
    const stats = fstatSync(fd);
    if (!stats.isFile()) throw formatError(path, 'not a regular file');
    return { path, fd, size: stats.size };
  } catch (cause) {
    closeSync(fd);
    throw storeError(`reading ${path}`, cause);
  }
}

/** The whole of a file of at most `limit` bytes. */
export function readSmallFile(path: string, limit: number, missing: string): Buffer {
  const file = openRegular(path, missing);
  try {
    if (file.size > limit) throw formatError(path, `${file.size} bytes, more than ${limit}`);
    return readFully(file);
  } catch (cause) {
    throw storeError(`reading ${path}`, cause);
  } finally {
    closeSync(file.fd);
  }
}

function readFully({ fd, path, size }: OpenBlob): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let done = 0;
  while (done < size) {
    const got = readSync(fd, bytes, done, size - done, done);
    if (got === 0) throw corruptError(path, 'it became shorter while it was read');
    done += got;
  }
  return bytes;
}

/** Reads a blob whose size is known, and checks size and digest. */
export function readBlob(store: string, ref: BlobRef, limit: number, what: string): Buffer {
  if (ref.size > limit) {
    throw formatError(what, `its descriptor says ${ref.size} bytes, more than ${limit}`);
  }
  const bytes = readBlobByDigest(store, ref.digest, limit, what);
  if (bytes.length !== ref.size) throw sizeError(what, ref, bytes.length);
  return bytes;
}

/** Reads a blob of which only the digest is known. */
export function readBlobByDigest(
  store: string,
  digest: string,
  limit: number,
  what: string,
): Buffer {
  const path = blobPath(store, digest);
  const bytes = readSmallFile(path, limit, `${what} ${digest} is not in the store ${store}`);
  const found = sha256(bytes);
  if (found !== digest) {
    throw corruptError(`${what} ${digest}`, `its bytes have ${found}`, { digest, found });
  }
  return bytes;
}

/** Opens a blob too large to read at once; its size is checked, its bytes are not. */
export function openBlob(store: string, ref: BlobRef, what: string): OpenBlob {
  const file = openRegular(
    blobPath(store, ref.digest),
    `${what} ${ref.digest} is not in the store ${store}`,
  );
  if (file.size === ref.size) return file;
  closeSync(file.fd);
  throw sizeError(what, ref, file.size);
}

function sizeError(what: string, ref: BlobRef, found: number): Error {
  return corruptError(`${what} ${ref.digest}`, `${found} bytes instead of ${ref.size}`, {
    digest: ref.digest,
    size: found,
    expected: ref.size,
  });
}
