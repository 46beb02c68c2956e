export interface ManyOptions {
  what: 'fanout' | 'churn';
  memoryMiB: number;
  count: number;
  lanes: number[];
  ms: number;
  json: string | undefined;
}
export const USAGE: string;
export function parseManyOptions(argv: string[]): ManyOptions | undefined;
