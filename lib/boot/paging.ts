import { StructWriter } from './bytes.js';

/** Page table entry bits (Intel SDM volume 3, 4.5.4). */
const PRESENT = 1n;
const WRITABLE = 2n;
const USER = 4n;
const ACCESSED = 0x20n;
const DIRTY = 0x40n;
const LARGE = 0x80n;

const TABLE_BYTES = 4096;
const ENTRIES = 512;
const LARGE_PAGE_SHIFT = 21n;

/** Who may use the pages that a table maps. */
export interface Access {
  /** Ring 3 too, not only rings 0 to 2. */
  user: boolean;
  /** But not these; whole multiples of 2 MiB. */
  reserved?: { start: bigint; end: bigint };
}

/** Bytes that {@link identityTables} takes for `gib` GiB. */
export const identityTablesSize = (gib: number): number => (2 + gib) * TABLE_BYTES;

/**
 * Four-level tables that map [0, `gib` GiB) to itself with 2 MiB pages, writable: PML4, PDPT, then a
 * page directory for each GiB, consecutive from `base`. At most 512 GiB (one PML4 entry). All are marked
 * accessed and dirty, so that the CPU has nothing to write there.
 */
export function identityTables(base: bigint, gib: number, { user, reserved }: Access): Uint8Array {
  if (gib < 1 || gib > ENTRIES) throw new RangeError(`cannot identity-map ${gib} GiB`);
  const flags = PRESENT | WRITABLE | ACCESSED | (user ? USER : 0n);
  const tables = new StructWriter(identityTablesSize(gib));
  const pdpt = TABLE_BYTES;
  const directories = 2 * TABLE_BYTES;
  tables.u64(0, (base + BigInt(pdpt)) | flags);
  for (let i = 0; i < gib; i++) {
    const directory = directories + i * TABLE_BYTES;
    tables.u64(pdpt + i * 8, (base + BigInt(directory)) | flags);
    for (let j = 0; j < ENTRIES; j++) {
      const page = BigInt(i * ENTRIES + j) << LARGE_PAGE_SHIFT;
      const kept = reserved !== undefined && page >= reserved.start && page < reserved.end;
      tables.u64(directory + j * 8, page | (kept ? flags & ~USER : flags) | DIRTY | LARGE);
    }
  }
  return tables.bytes;
}
