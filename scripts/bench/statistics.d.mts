export interface Summary {
  p50: number;
  p99: number;
  n: number;
}
export interface Round {
  product: number[];
  floor: number[];
}
export interface Combined {
  p50_us: number;
  p99_us: number;
  n: number;
  floor_us: number | null;
  ratio: number | null;
  floor_p99_us?: number;
  floor_n?: number;
  ratio_lowest?: number;
  ratio_highest?: number;
}
export function percentile(samples: readonly number[], percent: number): number;
export function summarize(samples: readonly number[]): Summary;
export function combine(rounds: readonly Round[]): Combined;
