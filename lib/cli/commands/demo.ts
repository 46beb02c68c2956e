import type { Command } from 'commander';
import { type DemoResult, runDemo } from '../demo/demo.js';
import { withJson } from '../options.js';
import { formatBytes, formatMs, print, printable, printJson, table } from '../output.js';

export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .summary('snapshot a counting guest and restore it in a new process')
    .description(
      'Boots a guest that counts in memory and on its serial port, snapshots it mid-count, restores\n' +
        'it in a new process, and checks that it goes on with the very next number.',
    )
    .option('--store <dir>', 'keep the snapshot here, tagged demo (default: it is removed)');
  withJson(command).action(async ({ store, json }: { store?: string; json?: boolean }) => {
    const result = await runDemo(store, json ? () => undefined : print);
    if (json) printJson(result);
    else print(renderCosts(result));
  });
}

function renderCosts({ costs, store }: DemoResult): string {
  const rows = [
    ['make the machine', formatMs(costs.createMs)],
    ['until its first number', formatMs(costs.firstNumberMs)],
    ['snapshot: guest stands still', formatMs(costs.pauseMs)],
    ['snapshot: write and commit', `${formatMs(costs.writeMs)}, ${formatBytes(costs.bytes)}`],
    ['restore', formatMs(costs.restoreMs)],
    ['restore until the first character', formatMs(costs.firstOutputMs)],
    ['new process, Node and all', formatMs(costs.newProcessMs)],
  ];
  const kept =
    store === undefined
      ? ''
      : `\nThe snapshot is kept: kvmsnap inspect --store ${printable(store)} demo\n`;
  return `\nWhat it cost:\n${table(rows as string[][], '  ')}${kept}`;
}
