import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { KvmsnapError, requireArgument } from '../errors.js';

/** How a guest of native/guest/ is to be started; the entry contract heads each source file. */
export interface GuestInfo {
  format: 'elf' | 'flat';
  /** Where a flat guest is loaded and entered. */
  loadAddress?: bigint;
  mode: 'real' | 'protected' | 'long';
  /** Rings it runs in, the preferred one first. */
  rings: readonly (0 | 3)[];
}

const LONG_ANY: GuestInfo = { format: 'elf', mode: 'long', rings: [3, 0] };
const LONG_RING0: GuestInfo = { format: 'elf', mode: 'long', rings: [0] };

/** Every guest that the build makes, by name. */
export const GUESTS = {
  counter: LONG_ANY,
  dirtier: LONG_ANY,
  escape: { format: 'elf', mode: 'long', rings: [3] },
  hostile: LONG_ANY,
  jobs: { format: 'elf', mode: 'long', rings: [3] },
  lapic: LONG_RING0,
  msrs: LONG_RING0,
  pattern: LONG_ANY,
  pit: LONG_RING0,
  ports: LONG_ANY,
  protected: { format: 'elf', mode: 'protected', rings: [0, 3] },
  real: { format: 'flat', loadAddress: 0x8000n, mode: 'real', rings: [0] },
  registers: LONG_ANY,
  secrets: LONG_ANY,
  'serial-irq': LONG_RING0,
  smp: LONG_RING0,
  'smp-ring3': LONG_ANY,
  ticks: LONG_RING0,
  touch: LONG_ANY,
  writer: LONG_ANY,
} as const satisfies Record<string, GuestInfo>;

export type GuestName = keyof typeof GUESTS;

/** Names of all guests, sorted. */
export const guestNames = (): GuestName[] => (Object.keys(GUESTS) as GuestName[]).sort();

/** From lib/native/ and dist/native/ alike. */
const DIRECTORY = new URL('../../build/guests/', import.meta.url);

/**
 * The file of a guest, built or not.
 * @throws `ERR_INVALID_ARGUMENT` for a name that is not in {@link GUESTS}.
 */
export function guestPath(name: GuestName): string {
  requireArgument(
    Object.hasOwn(GUESTS, name),
    `there is no guest "${String(name)}"; there are ${guestNames().join(', ')}`,
  );
  const suffix = GUESTS[name].format === 'flat' ? 'bin' : 'elf';
  return fileURLToPath(new URL(`${name}.${suffix}`, DIRECTORY));
}

/**
 * The bytes of a guest: an ELF64 file or a flat binary, see {@link GUESTS}.
 * @throws `ERR_ADDON` if it is not built.
 */
export function readGuest(name: GuestName): Uint8Array {
  const path = guestPath(name);
  try {
    return readFileSync(path);
  } catch (cause) {
    const root = fileURLToPath(new URL('../../', import.meta.url));
    throw new KvmsnapError(
      'ERR_ADDON',
      `the guest "${name}" cannot be read from ${path}: ${(cause as Error).message}. Build the ` +
        `guests with \`node scripts/build/guests.mjs\` in ${root} (it needs gcc)`,
      { cause },
    );
  }
}
