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
import type { Reading } from './reading.js';

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

function readFully(file: OpenBlob): Buffer {
  const bytes = Buffer.allocUnsafe(file.size);
  readPiece(file, bytes, 0);
  return bytes;
}

function readPiece({ fd, path }: OpenBlob, into: Uint8Array, position: number): void {
  for (let done = 0; done < into.length; ) {
    const got = readSync(fd, into, done, into.length - done, position + done);
    if (got === 0) throw corruptError(path, 'it became shorter while it was read');
    done += got;
  }
}

/** What is read and hashed before others have their turn: a millisecond or two. */
const PIECE_BYTES = 512 * 1024;

/** The whole of a file of at most `limit` bytes, in pieces. `seen` gets each. */
export async function readFile(
  reading: Reading,
  path: string,
  limit: number,
  { what, missing, seen }: { what: string; missing: string; seen?: (piece: Buffer) => void },
): Promise<Buffer> {
  const file = openRegular(path, missing);
  try {
    if (file.size > limit) throw formatError(path, `${file.size} bytes, more than ${limit}`);
    reading.willRead(file.size, what);
    const bytes = Buffer.allocUnsafe(file.size);
    for (let at = 0; at < file.size; at += PIECE_BYTES) {
      const piece = bytes.subarray(at, at + PIECE_BYTES);
      readPiece(file, piece, at);
      seen?.(piece);
      await reading.breathe();
    }
    return bytes;
  } catch (cause) {
    throw storeError(`reading ${path}`, cause);
  } finally {
    closeSync(file.fd);
  }
}

/** Reads a blob whose size is known, and checks size and digest. */
export async function readBlob(
  reading: Reading,
  ref: BlobRef,
  limit: number,
  what: string,
): Promise<Buffer> {
  requireBlobSize(ref, limit, what);
  const bytes = await readBlobByDigest(reading, ref.digest, limit, what);
  if (bytes.length !== ref.size) throw sizeError(what, ref, bytes.length);
  return bytes;
}

/** `ERR_SNAPSHOT_FORMAT` for a blob that says of itself that it is too large. */
export function requireBlobSize(ref: BlobRef, limit: number, what: string): void {
  if (ref.size > limit) {
    throw formatError(what, `its descriptor says ${ref.size} bytes, more than ${limit}`);
  }
}

/** Reads a blob of which only the digest is known. */
export async function readBlobByDigest(
  reading: Reading,
  digest: string,
  limit: number,
  what: string,
): Promise<Buffer> {
  const { store } = reading;
  const hash = createHash('sha256');
  const bytes = await readFile(reading, blobPath(store, digest), limit, {
    what,
    missing: `${what} ${digest} is not in the store ${store}`,
    seen: (piece) => hash.update(piece),
  });
  const found = `sha256:${hash.digest('hex')}`;
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

export function sizeError(what: string, ref: BlobRef, found: number): Error {
  return corruptError(`${what} ${ref.digest}`, `${found} bytes instead of ${ref.size}`, {
    digest: ref.digest,
    size: found,
    expected: ref.size,
  });
}
