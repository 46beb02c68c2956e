export type Workload = (writes: number, range: number, seed: number) => number[];
export function random(seed: number): () => number;
export const WORKLOADS: Record<'sequential' | 'random' | 'hotcold' | 'zipf', Workload>;
