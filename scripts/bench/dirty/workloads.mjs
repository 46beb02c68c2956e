// Which pages a round writes, in which order. Pure functions of a seed, so that every tracker meets the
// same rounds.

/** xorshift64*, as numbers from 0 to 1. */
export function random(seed) {
  let state = BigInt.asUintN(64, BigInt(seed) * 0x9e3779b97f4a7c15n) || 1n;
  return () => {
    state ^= state >> 12n;
    state = BigInt.asUintN(64, state ^ (state << 25n));
    state ^= state >> 27n;
    return Number(BigInt.asUintN(53, (state * 0x2545f4914f6cdd1dn) >> 11n)) / 2 ** 53;
  };
}

/** Ranks with probability proportional to 1 / rank, by inversion of the harmonic sum's integral. */
const zipfRank = (next, range) => Math.min(range - 1, Math.floor((range + 1) ** next() - 1));

/** Ranks scattered over the range: hot pages are not neighbours. `range` is a power of two. */
const scatter = (rank, range) => (Math.imul(rank, 0x9e3779b1) >>> 0) & (range - 1);

/** Each gives `writes` numbers of pages below `range`, a power of two. */
export const WORKLOADS = {
  sequential: (writes, range, seed) => {
    const first = Math.floor(random(seed)() * (range - writes + 1));
    return Array.from({ length: writes }, (_, i) => first + i);
  },
  random: (writes, range, seed) => {
    const next = random(seed);
    return Array.from({ length: writes }, () => Math.floor(next() * range));
  },
  // Nine writes in ten go to a tenth of as many pages as there are writes.
  hotcold: (writes, range, seed) => {
    const next = random(seed);
    const hot = Math.max(1, Math.floor(writes / 10));
    return Array.from({ length: writes }, () =>
      next() < 0.9 ? scatter(Math.floor(next() * hot), range) : Math.floor(next() * range),
    );
  },
  zipf: (writes, range, seed) => {
    const next = random(seed);
    return Array.from({ length: writes }, () => scatter(zipfRank(next, range), range));
  },
};
