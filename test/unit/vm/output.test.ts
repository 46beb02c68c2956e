import { describe, expect, it } from 'vitest';
import { MiB } from '../../../lib/units.js';
import { OutputGate, OutputStream } from '../../../lib/vm/output.js';

const bytes = (text: string) => Buffer.from(text);

function gate() {
  const flows: boolean[] = [];
  return { flows, output: new OutputGate((flowing) => flows.push(flowing)) };
}

describe('output that nobody reads yet', () => {
  it('is there for a late reader, in order, and never holds the guest up', async () => {
    const { flows, output } = gate();
    for (let i = 0; i < 1000; i++) output.take(bytes(`${i}\n`));
    output.end();
    const chunks = await new OutputStream(output).toArray();
    const expected = Array.from({ length: 1000 }, (_, i) => `${i}\n`).join('');
    expect(Buffer.concat(chunks).toString()).toBe(expected);
    // Gathered: not a Buffer for each write.
    expect(chunks.length).toBeLessThan(5);
    expect(flows).toEqual([]);
  });

  it('is the last MiB at least, and little more', async () => {
    const { output } = gate();
    const line = Buffer.alloc(1000, 'x');
    for (let i = 0; i < 5000; i++) {
      line.writeUInt32LE(i);
      output.take(line);
    }
    output.end();
    const all = Buffer.concat(await new OutputStream(output).toArray());
    expect(all.length).toBeGreaterThanOrEqual(MiB(1));
    expect(all.length).toBeLessThan(MiB(1.1));
    expect(all.readUInt32LE(all.length - 1000)).toBe(4999);
  });
});

describe('output that is read', () => {
  it('stops the flow when its reader does, and starts it again', async () => {
    const { flows, output } = gate();
    const stream = new OutputStream(output);
    stream.read(0);
    while (flows.length === 0) output.take(Buffer.alloc(20_000, 'y'));
    expect(flows).toEqual([false]);
    stream.resume();
    await new Promise((resolve) => setImmediate(resolve));
    expect(flows.at(-1)).toBe(true);
  });

  it('goes out unchanged, also in pieces that come while the reader rests', async () => {
    const { output } = gate();
    const stream = new OutputStream(output);
    const read: Buffer[] = [];
    let text = '';
    for (let i = 0; i < 300; i++) {
      const line = `${i}:${'z'.repeat(i * 7)}\n`;
      text += line;
      output.take(bytes(line));
      if (i % 50 === 0) {
        const some = stream.read();
        if (some !== null) read.push(some);
      }
    }
    output.end();
    for await (const chunk of stream) read.push(chunk);
    expect(Buffer.concat(read).toString()).toBe(text);
  });
});
