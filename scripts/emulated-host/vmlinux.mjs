// Takes the uncompressed ELF kernel out of a bzImage. Fields of the setup header are those of
// Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header").

import { spawnSync } from 'node:child_process';
import { gunzipSync } from 'node:zlib';

const MAX_KERNEL_BYTES = 512 * 1024 * 1024;
const EM_X86_64 = 62;

// The kernel's build appends the uncompressed size to every format but gzip, which has it as the
// last field of its own trailer (scripts/Makefile.lib, size_append).
const FORMATS = [
  { name: 'xz', magic: 'fd377a585a00', command: ['xz', '-dc'] },
  { name: 'lz4 (legacy)', magic: '02214c18', command: ['lz4', '-dc'] },
  { name: 'zstd', magic: '28b52ffd', command: ['zstd', '-dc'] },
  { name: 'gzip', magic: '1f8b08' },
];

function payloadOf(bzImage) {
  const fail = (why) => {
    throw new Error(`not a bzImage that can be unpacked: ${why}`);
  };
  if (bzImage.length < 0x250) fail(`it has only ${bzImage.length} bytes`);
  if (bzImage.toString('latin1', 0x202, 0x206) !== 'HdrS') fail('no "HdrS" at offset 0x202');
  const version = bzImage.readUInt16LE(0x206);
  if (version < 0x208) fail(`boot protocol 0x${version.toString(16)}, 0x208 is needed`);
  const setupSectors = bzImage.readUInt8(0x1f1) || 4;
  const start = (setupSectors + 1) * 512 + bzImage.readUInt32LE(0x248);
  const length = bzImage.readUInt32LE(0x24c);
  if (length < 8 || start + length > bzImage.length) fail('its payload lies outside the file');
  return bzImage.subarray(start, start + length);
}

function decompress(payload) {
  const head = payload.toString('hex', 0, 8);
  const format = FORMATS.find(({ magic }) => head.startsWith(magic));
  if (!format) throw new Error(`unknown compression of the kernel (payload starts with ${head})`);
  if (!format.command) return gunzipSync(payload, { maxOutputLength: MAX_KERNEL_BYTES });
  const [command, ...args] = format.command;
  const run = spawnSync(command, args, {
    input: payload.subarray(0, -4),
    maxBuffer: MAX_KERNEL_BYTES,
  });
  if (run.error?.code === 'ENOENT') {
    throw new Error(`the kernel is compressed with ${format.name}: install ${command}`);
  }
  if (run.error) throw run.error;
  if (run.status !== 0) {
    throw new Error(`${command} cannot unpack the kernel: ${run.stderr.toString().trim()}`);
  }
  return run.stdout;
}

/**
 * The ELF vmlinux inside a bzImage. With CONFIG_X86_NEED_RELOCS the relocation table follows the
 * ELF image; loaders do not look there.
 */
export function carveVmlinux(bzImage) {
  const payload = payloadOf(bzImage);
  const vmlinux = decompress(payload);
  const expected = payload.readUInt32LE(payload.length - 4);
  if (vmlinux.length !== expected) {
    throw new Error(`the kernel unpacks to ${vmlinux.length} bytes, its header says ${expected}`);
  }
  const isElf64 = vmlinux.length >= 64 && vmlinux.toString('hex', 0, 5) === '7f454c4602';
  if (!isElf64 || vmlinux.readUInt16LE(18) !== EM_X86_64) {
    throw new Error('the payload of the bzImage is not an x86-64 ELF kernel');
  }
  return vmlinux;
}
