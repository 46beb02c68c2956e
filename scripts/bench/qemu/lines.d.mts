export class Lines {
  push(piece: string): string[];
}
export type Message =
  | { kind: 'greeting' }
  | { kind: 'event'; name: string; data: unknown }
  | { kind: 'error'; id: number | undefined; text: string }
  | { kind: 'answer'; id: number | undefined; value: unknown };
export function classify(line: string): Message;
