// Writes cpio archives in the "newc" format, the one the Linux kernel unpacks as initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). Written here rather than with
// cpio(1), so that device nodes need no root and the result is the same bytes every time.

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

const pad4 = (length) => (4 - (length % 4)) % 4;

function newcHeader(fields) {
  const hex = fields.map((value) => value.toString(16).toUpperCase().padStart(8, '0'));
  return Buffer.from(`070701${hex.join('')}`, 'ascii');
}

function normalize(path) {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (parts.length === 0 || parts.includes('..')) {
    throw new Error(`cpio: "${path}" is not a path inside the archive`);
  }
  return parts;
}

/** An initramfs in the making. Parent directories are added by themselves. */
export class CpioArchive {
  #entries = new Map();

  #add(path, entry) {
    const parts = normalize(path);
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join('/');
      if (!this.#entries.has(parent)) {
        this.#entries.set(parent, { mode: S_IFDIR | 0o755, data: Buffer.alloc(0) });
      }
    }
    this.#entries.set(parts.join('/'), { data: Buffer.alloc(0), ...entry });
    return this;
  }

  directory(path, mode = 0o755) {
    return this.#add(path, { mode: S_IFDIR | mode });
  }

  /** @param data file content, as bytes or UTF-8 text */
  file(path, data, mode = 0o644) {
    return this.#add(path, { mode: S_IFREG | mode, data: Buffer.from(data) });
  }

  symlink(path, target) {
    return this.#add(path, { mode: S_IFLNK | 0o777, data: Buffer.from(target) });
  }

  characterDevice(path, major, minor, mode = 0o600) {
    return this.#add(path, { mode: S_IFCHR | mode, major, minor });
  }

  /** The archive. The kernel takes several of them one after another as one initramfs. */
  toBuffer() {
    const chunks = [];
    let inode = 1;
    const append = (name, { mode, data, major = 0, minor = 0 }) => {
      const nameBytes = Buffer.from(`${name}\0`);
      // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
      // namesize, check
      const header = newcHeader([
        inode++,
        mode,
        0,
        0,
        1,
        0,
        data.length,
        0,
        0,
        major,
        minor,
        nameBytes.length,
        0,
      ]);
      chunks.push(header, nameBytes, Buffer.alloc(pad4(header.length + nameBytes.length)));
      chunks.push(data, Buffer.alloc(pad4(data.length)));
    };
    for (const [name, entry] of this.#entries) append(name, entry);
    append('TRAILER!!!', { mode: 0, data: Buffer.alloc(0) });
    return Buffer.concat(chunks);
  }
}
