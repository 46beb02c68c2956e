/** SHA-256 and CRC-32C of files without the addon. */
import { createHash } from 'node:crypto';
import { read } from 'node:fs';
import { promisify } from 'node:util';
import { KvmsnapError } from '../errors.js';
import type { NativeBinding } from '../native/binding.js';
import { crc32c } from './crc32c.js';

export type DigestFile = NativeBinding['digestFile'];

/** Bytes that are hashed without letting others have the event loop: a millisecond or two. */
const MOST_AT_ONCE = 512 * 1024;

const readAsync = promisify(read);

/** `NativeBinding.digestFile` in JavaScript, for where the addon is not: same results, slower. */
export const digestFile: DigestFile = (fd, chunkSize, progress) => {
  let cancelled = false;
  const run = async () => {
    const hash = createHash('sha256');
    const checksums: number[] = [];
    const buffer = Buffer.allocUnsafe(Math.min(chunkSize, MOST_AT_ONCE));
    let size = 0;
    for (let inChunk = 0; ; ) {
      const piece = buffer.subarray(0, Math.min(buffer.length, chunkSize - inChunk));
      const got = await readAt(fd, piece, size);
      if (cancelled) throw new KvmsnapError('ERR_ABORTED', 'the digest was cancelled');
      if (got > 0) {
        const bytes = piece.subarray(0, got);
        hash.update(bytes);
        if (inChunk === 0) checksums.push(0);
        checksums.push(crc32c(bytes, checksums.pop()));
        inChunk = (inChunk + got) % chunkSize;
        size += got;
        progress?.(size);
      }
      if (got < piece.length) break;
    }
    return { sha256: hash.digest(), crc32c: Uint32Array.from(checksums), size };
  };
  return {
    done: run(),
    cancel: () => {
      cancelled = true;
    },
  };
};

/** Reads until `into` is full or the file ends. */
export async function readAt(fd: number, into: Uint8Array, position: number): Promise<number> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await readAsync(fd, into, done, into.length - done, position + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return done;
}
