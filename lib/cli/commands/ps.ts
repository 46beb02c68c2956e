import type { Command } from 'commander';
import { MachineClient } from '../control/client.js';
import type { MachineInfo } from '../control/protocol.js';
import { machineNames } from '../control/registry.js';
import { withJson } from '../options.js';
import { formatAge, formatBytes, print, printJson, table } from '../output.js';

const ANSWER_MS = 2000;

type Row = MachineInfo | { name: string; status: 'unknown' };

export function addPs(program: Command): void {
  withJson(program.command('ps').description('List the named machines of this user.')).action(
    async (options: { json?: boolean }) => {
      const rows = (await Promise.all((await machineNames()).map(ask))).filter(
        (row) => row !== undefined,
      );
      if (options.json) printJson(rows);
      else print(render(rows, Date.now()));
    },
  );
}

/** A machine that ended just now is left out; one whose host does not answer is `unknown`. */
async function ask(name: string): Promise<Row | undefined> {
  try {
    using client = await MachineClient.connect(name);
    const timer = setTimeout(() => client.close(), ANSWER_MS);
    return await client.status().finally(() => clearTimeout(timer));
  } catch {
    const isThere = (await machineNames()).includes(name);
    return isThere ? { name, status: 'unknown' } : undefined;
  }
}

export function render(rows: readonly Row[], now: number): string {
  const header = ['NAME', 'STATUS', 'PID', 'CPUS', 'MEMORY', 'AGE', 'GUEST'];
  const cells = rows.map((row) => {
    if (!('pid' in row)) return [row.name, row.status, '', '', '', '', ''];
    const { name, status, pid, vcpus, memory, started, guest } = row;
    const age = formatAge(now - Date.parse(started));
    return [name, status, `${pid}`, `${vcpus}`, formatBytes(memory), age, guest];
  });
  return table([header, ...cells]);
}
