import type { Combined } from './statistics.mjs';

export interface Result extends Combined {
  name: string;
  floor_name?: string | null;
  aim?: number;
  /** The longest time that is good enough. */
  limit_us?: number;
}
export interface BenchHost {
  cpu: string;
  cpus: number;
  kernel: string;
  kvm: string;
  node: string;
}
export interface BenchRun {
  memory_MiB: number;
  load_before: number;
  load_after: number;
  rounds: number;
  /** Figures for which there was no time. */
  left_out?: string[];
}
export function formatTime(us: number): string;
export function formatTable(results: readonly Result[]): string;
export function formatColumns(columns: readonly string[], texts: readonly string[][]): string;
export function formatHost(host: BenchHost, run: BenchRun): string;
