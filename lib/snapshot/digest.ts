/** SHA-256 and CRC-32C of files without the addon. */
import { createHash } from 'node:crypto';
import { read } from 'node:fs';
import { promisify } from 'node:util';
import { KvmsnapError } from '../errors.js';
import type { NativeBinding } from '../native/binding.js';
import { crc32c } from './crc32c.js';

export type DigestFile = NativeBinding['digestFile'];

const readAsync = promisify(read);

/** `NativeBinding.digestFile` in JavaScript, for where the addon is not: same results, slower. */
export const digestFile: DigestFile = (fd, chunkSize, progress) => {
  let cancelled = false;
  const run = async () => {
    const hash = createHash('sha256');
    const checksums: number[] = [];
    const chunk = Buffer.allocUnsafe(chunkSize);
    let size = 0;
    for (;;) {
      const got = await readAt(fd, chunk, size);
      if (cancelled) throw new KvmsnapError('ERR_ABORTED', 'the digest was cancelled');
      if (got > 0) {
        const bytes = chunk.subarray(0, got);
        hash.update(bytes);
        checksums.push(crc32c(bytes));
        size += got;
        progress?.(size);
      }
      if (got < chunkSize) break;
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
