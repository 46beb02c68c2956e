#!/usr/bin/env node
import { CommanderError } from 'commander';
import { end, wasInterrupted, watchSignals, writeFailureCode } from './ending.js';
import { Exit } from './exit.js';
import { EXIT, exitCodeOf } from './exit-codes.js';
import { flush, print } from './output.js';
import { buildProgram } from './program.js';
import { report } from './report.js';

/** Runs one command and gives its exit code. */
async function main(argv: string[]): Promise<number> {
  const exit = new Exit();
  const program = buildProgram(exit);
  try {
    if (argv.length === 0) {
      print(program.helpInformation());
      return EXIT.usage;
    }
    await program.parseAsync(argv, { from: 'user' });
    return exit.code;
  } catch (error) {
    if (error instanceof CommanderError) return usage(error);
    // What an interrupted command then ran into is not news.
    if (!wasInterrupted()) report(error);
    return exitCodeOf(error);
  }
}

/** Commander throws for --help and --version too. */
function usage({ exitCode, message, code }: CommanderError): number {
  if (exitCode === 0) return EXIT.ok;
  if (code === 'commander.help') return EXIT.usage;
  const problem = message.replace(/^error: /, '').replace(/([^.?)])$/, '$1.');
  report(new Error(`${problem} Try kvmsnap --help.`));
  return EXIT.usage;
}

watchSignals();
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => void end(writeFailureCode(error)));
}
process.on('uncaughtException', (error) => {
  report(error);
  void end(EXIT.failure);
});

const code = await main(process.argv.slice(2));
await Promise.all([flush(process.stdout), flush(process.stderr)]);
await end(code);
