/** Reading kernels and initrds from files. */
import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { requireArgument } from '../errors.js';
import { MiB } from '../units.js';
import { MAX_INITRD, packInitrd } from './initrd/pack.js';
import { systemError } from './system-error.js';

/** Well above any kernel, well below what would hurt the process that reads it. */
const MAX_KERNEL = MiB(512);
async function readRegularFile(path: string, what: string, max: number): Promise<Uint8Array> {
  let file: FileHandle | undefined;
  try {
    // Without O_NONBLOCK the open of a FIFO would wait for a writer.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const info = await file.stat();
    requireArgument(info.isFile(), `the ${what} ${path} is not a regular file`);
    requireArgument(
      info.size <= max,
      `the ${what} ${path} has ${info.size} bytes; at most ${max} are allowed`,
    );
    return await file.readFile();
  } catch (error) {
    throw systemError(error, `read the ${what} ${path}`);
  } finally {
    await file?.close();
  }
}

/**
 * Reads a kernel or bare image. Throws `ERR_SYSTEM` if it cannot be read and
 * `ERR_INVALID_ARGUMENT` if it is no regular file or larger than 512 MiB.
 */
export const readKernelFile = (path: string): Promise<Uint8Array> =>
  readRegularFile(path, 'kernel', MAX_KERNEL);

/** Reads an initrd from a file, or packs it from a directory (see {@link packInitrd}). */
export async function readInitrd(path: string): Promise<Uint8Array> {
  const info = await stat(path).catch((error: unknown) => {
    throw systemError(error, `read the initrd ${path}`);
  });
  return info.isDirectory() ? packInitrd(path) : readRegularFile(path, 'initrd', MAX_INITRD);
}
