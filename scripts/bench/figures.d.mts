export interface Figure {
  name: string;
  /** The floor program's name of what it is compared with. */
  floor: string;
  /** The greatest ratio that is good enough. */
  aim?: number;
}
export interface Group {
  name: string;
  floorGroups: string[];
  figures: Figure[];
}
export const GROUPS: Group[];
export function selectGroups(pattern: RegExp): Group[];
