/** `pause`, `resume`: the same but for the word. */
import type { Command } from 'commander';
import { withMachine } from '../hosting.js';
import { withJson } from '../options.js';
import { print, printJson } from '../output.js';
import { parseName } from '../values.js';

const DESCRIPTIONS = {
  pause: 'Pause a named machine, in memory only.',
  resume: 'Let a paused or not yet started machine run.',
} as const;

export function addPauseAndResume(program: Command): void {
  for (const verb of ['pause', 'resume'] as const) {
    const command = program
      .command(verb)
      .description(DESCRIPTIONS[verb])
      .argument('<name>', 'name of the machine', parseName);
    withJson(command).action(async (name: string, options: { json?: boolean }) => {
      const status = await withMachine(name, async (client) => {
        await client[verb]();
        return (await client.status()).status;
      });
      if (options.json) printJson({ name, status });
      else print(`${name} is ${status}`);
    });
  }
}
