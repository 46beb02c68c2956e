/** No text of a guest, a store or another process drives the terminal. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Exit } from '../../../lib/cli/exit.js';
import { jsonText, printable, table } from '../../../lib/cli/output.js';
import { buildProgram } from '../../../lib/cli/program.js';
import { errorLine } from '../../../lib/cli/report.js';
import { KvmsnapError } from '../../../lib/errors.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { sampleConfig, sampleState, writePages } from '../snapshot/samples.js';
import { scratch } from '../snapshot/scratch.js';

/** One of each kind that must not reach a terminal. */
const HOSTILE = [
  ...['\u0000', '\u0007', '\b', '\t', '\n', '\r', '\u001b[2J', '\u007f', '\u0085', '\u009b31m'],
  ...['\u061c', '\u200b', '\u200e', '\u200f', '\u202a', '\u202e', '\u2066', '\u2069', '\ufeff'],
  ...['\u2028', '\u2029', '\ud800', '\udfff', '\u{e0041}', '\u00ad'],
];
const ALL = HOSTILE.join('x');
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what must not be there.
const CONTROL = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]|[\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;

describe('printable text', () => {
  it.each(HOSTILE)('has no %j', (text) => {
    expect(printable(`a${text}b`)).not.toMatch(CONTROL);
    expect(printable(`a${text}b`)).not.toContain('\n');
    expect(jsonText({ [text]: [text] })).not.toMatch(CONTROL);
    expect(JSON.parse(jsonText({ [text]: [text] }))).toEqual({ [text]: [text] });
    expect(table([[text, 'x']])).not.toMatch(CONTROL);
    expect(table([[text, 'x']]).split('\n')).toHaveLength(2);
    expect(errorLine(new KvmsnapError('ERR_STORE', `x${text}y`))).not.toMatch(CONTROL);
  });

  it('is left as it is otherwise', () => {
    const text = 'Grüße, 世界, 👍🏽, e\u0301: "\\"';
    expect(printable(text)).toBe(text);
    expect(JSON.parse(jsonText(text))).toBe(text);
  });
});

describe('commands', () => {
  afterEach(() => void vi.restoreAllMocks());

  /** All that a command writes to the terminal. */
  async function output(...args: string[]): Promise<string> {
    let text = '';
    for (const stream of [process.stdout, process.stderr]) {
      vi.spyOn(stream, 'write').mockImplementation((data) => {
        text += data;
        return true;
      });
    }
    await buildProgram(new Exit()).parseAsync(args, { from: 'user' });
    vi.restoreAllMocks();
    return text;
  }

  it('print nothing of a store that drives the terminal', async () => {
    const path = join(scratch(), 'store');
    const store = await SnapshotStore.open(path, { create: true, durable: false });
    const writer = await store.begin();
    const memory = writePages(writer, { 0: 1 });
    const sample = sampleConfig();
    const cpu = { ...sample.host.cpu, vendor: '\u001b[2J\u202e' };
    const config = {
      ...sample,
      annotations: { note: ALL, [`k${ALL}`]: 'v' },
      host: { ...sample.host, kernel: ALL, cpu },
    };
    const state = sampleState();
    await writer.commit({ tag: 'nasty', config, state, memory });
    for (const command of ['list', 'inspect nasty', 'verify nasty', 'delete nasty']) {
      for (const json of [[], ['--json']]) {
        if (command.startsWith('delete') && json.length > 0) continue;
        const text = await output(...command.split(' '), '--store', path, ...json);
        expect(text, command).not.toBe('');
        expect(CONTROL.exec(text)?.[0], `${command} ${json}`).toBeUndefined();
      }
    }
  });
});

/** Where the guest's own streams go out as they are. */
const GUEST_STREAMS = ['control/host.ts', 'hosting.ts', 'session.ts'];

it('nothing in lib/cli writes to the terminal but through output.ts', () => {
  const root = join(import.meta.dirname, '../../../lib/cli');
  const found: string[] = [];
  for (const entry of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
    if (!entry.endsWith('.ts') || entry === 'output.ts') continue;
    const text = readFileSync(join(root, entry), 'utf8');
    if (
      /\bstd(out|err)\b[\s?.]*\.write\b|\bconsole\.(log|error|warn|info|table|debug)\(/.test(text)
    ) {
      found.push(entry);
    }
    const pipes = /\.pipe\(/.test(text);
    if (pipes && !GUEST_STREAMS.includes(entry)) found.push(`${entry} (pipe)`);
  }
  expect(found).toEqual([]);
});
