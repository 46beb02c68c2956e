#!/usr/bin/env node
import { CommanderError } from 'commander';
import { Exit } from './exit.js';
import { EXIT, exitCodeOf } from './exit-codes.js';
import { flush } from './output.js';
import { buildProgram } from './program.js';
import { report } from './report.js';

/** Runs one command and gives its exit code. */
async function main(argv: string[]): Promise<number> {
  const exit = new Exit();
  const program = buildProgram(exit);
  try {
    if (argv.length === 0) {
      process.stdout.write(program.helpInformation());
      return EXIT.usage;
    }
    await program.parseAsync(argv, { from: 'user' });
    return exit.code;
  } catch (error) {
    if (error instanceof CommanderError) return usage(error);
    report(error);
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

// A reader that has seen enough (`| head`) is no failure.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    process.exit(error.code === 'EPIPE' ? (process.exitCode ?? EXIT.ok) : EXIT.failure);
  });
}
process.on('uncaughtException', (error) => {
  report(error);
  process.exit(EXIT.failure);
});

const code = await main(process.argv.slice(2));
await Promise.all([flush(process.stdout), flush(process.stderr)]);
// Not left to the event loop: a terminal or pipe at stdin would keep it alive.
process.exit(code);
