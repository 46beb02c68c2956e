import type { Summary } from '../statistics.mjs';

export interface Fanout {
  kind: string;
  count: number;
  forkUs: number;
  forksPerSecond: number;
  idlePssKiB: number;
  ranPssKiB: number;
  fdsEach: number;
  mapsEach: number;
  firstExit: Summary;
  closeUs: number;
  closeLongestTurnUs: number;
  left: { fds: number; threads: number; maps: number; pssKiB: number };
}
export interface Churn extends Summary {
  kind: string;
  how: 'cold' | 'pooled';
  parallel: number;
  perSecond: number;
}
export const PSS_AIM_KIB: number;
export function formatFanout(result: Fanout): string;
export function formatChurn(results: readonly Churn[]): string;
export function leftBehind(result: Pick<Fanout, 'left'>): boolean;
