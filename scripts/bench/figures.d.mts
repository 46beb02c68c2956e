export interface Figure {
  name: string;
  /** The floor program's name of what it is compared with; null: of nothing. */
  floor: string | null;
  /** The greatest ratio that is good enough. */
  aim?: number;
  /** The longest time that is good enough: the sum of both. */
  limit?: { us?: number; usPerGiB?: number };
}
export interface Group {
  name: string;
  floorGroups: string[];
  figures: Figure[];
}
export const GROUPS: Group[];
export function selectGroups(pattern: RegExp): Group[];
export function limitOf(figure: Pick<Figure, 'limit'>, memoryMiB: number): number | undefined;
export const LATER_MIB: number;
