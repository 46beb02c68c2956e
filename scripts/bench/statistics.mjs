// What is made of samples. All times are microseconds.

/** Nearest rank, as the floor program has it; `percent` is above 0. */
export function percentile(samples, percent) {
  if (samples.length === 0) throw new RangeError('there is no percentile of no samples');
  const sorted = Float64Array.from(samples).sort();
  return sorted[Math.ceil((sorted.length * percent) / 100) - 1];
}

export function summarize(samples) {
  return { p50: percentile(samples, 50), p99: percentile(samples, 99), n: samples.length };
}

/**
 * One figure of all rounds. A round is `{ product, floor }`, the samples of each; `floor` may be
 * empty. `ratio` is of the medians of all samples; the range of the ratios of single rounds says how far
 * to trust it on a machine that has other work.
 */
export function combine(rounds) {
  const product = summarize(rounds.flatMap((round) => round.product));
  const floorSamples = rounds.flatMap((round) => round.floor);
  const result = { p50_us: product.p50, p99_us: product.p99, n: product.n };
  if (floorSamples.length === 0) return { ...result, floor_us: null, ratio: null };
  const floor = summarize(floorSamples);
  const ratios = rounds
    .filter((round) => round.product.length > 0 && round.floor.length > 0)
    .map((round) => percentile(round.product, 50) / percentile(round.floor, 50));
  return {
    ...result,
    floor_us: floor.p50,
    ratio: product.p50 / floor.p50,
    floor_p99_us: floor.p99,
    floor_n: floor.n,
    ratio_lowest: Math.min(...ratios),
    ratio_highest: Math.max(...ratios),
  };
}
