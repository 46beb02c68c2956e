import type { Command } from 'commander';
import type { Exit } from '../exit.js';
import { attachTo, withMachine } from '../hosting.js';
import { withDetachKey, withJson } from '../options.js';
import { type DetachKey, parseName } from '../values.js';

export function addConsole(program: Command, exit: Exit): void {
  const command = program
    .command('console')
    .summary('join the terminal to a named machine')
    .description(
      'Joins the terminal to a named machine, after what it printed last (up to 256 KiB).\n' +
        "When the guest ends, its exit code becomes the exit code, as with 'run'.",
    )
    .argument('<name>', 'name of the machine', parseName);
  withJson(withDetachKey(command)).action(
    async (name: string, options: { detachKey: DetachKey | undefined; json?: boolean }) => {
      exit.code = await withMachine(name, (client) => attachTo(name, client, options));
    },
  );
}
