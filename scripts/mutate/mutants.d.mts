export interface Mutant {
  /** Its own as long as its line, and those like it, stay as they are. */
  key: string;
  file: string;
  line: number;
  kind: string;
  before: string;
  after: string;
  /** The whole file with the fault in it. */
  mutated: string;
}
export function codeOnly(source: string): string;
export function mutantsOf(file: string, source: string): Mutant[];
export function shuffled<T extends { key: string }>(items: T[], seed: string): T[];
