/** What the guest `counter` sends: decimal numbers, a line each. */
import type { Vm } from '../../../lib/index.js';
import { until } from './machines.js';

/** Collects a machine's console from now on. */
export class Sent {
  text = '';

  constructor(vm: Vm) {
    vm.console.on('data', (bytes) => {
      this.text += bytes;
    });
  }

  async lines(more: number): Promise<void> {
    const goal = this.text.split('\n').length + more;
    await until('the guest sends lines', () => this.text.split('\n').length >= goal);
  }

  /** Lets what is under way arrive. */
  async settle(): Promise<void> {
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The first break in a sequence of numbers from 1, of which the last may be cut short. */
export function firstBreak(text: string): string | undefined {
  const lines = text.split('\n');
  const whole = lines.slice(0, -1);
  for (const [i, line] of whole.entries()) {
    if (line !== `${i + 1}`) return `line ${i + 1} is ${JSON.stringify(line)}`;
  }
  const rest = lines.at(-1)!;
  return `${whole.length + 1}`.startsWith(rest) ? undefined : `the last is ${rest}`;
}
