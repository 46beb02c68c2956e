import { CommanderError } from 'commander';
import { describe, expect, it } from 'vitest';
import { Exit } from '../../../lib/cli/exit.js';
import { buildProgram } from '../../../lib/cli/program.js';
import { KvmsnapError } from '../../../lib/errors.js';

async function failure(args: string[]): Promise<unknown> {
  try {
    await buildProgram(new Exit()).parseAsync(args, { from: 'user' });
  } catch (error) {
    return error;
  }
  throw new Error(`kvmsnap ${args.join(' ')} should have failed`);
}

describe('the command line', () => {
  it.each([
    [['bogus']],
    [['run', '--bogus']],
    [['run', '--guest', 'counter', '--memory', 'much']],
    [['run', '--guest', 'counter', '--cpus', '0']],
    [['run', '--guest', 'counter', '--name', '../x']],
    [['run', '--guest', 'counter', '--ring', '1']],
    [['run', '--bare', 'x', '--mode', 'virtual']],
    [['restore', 'x']],
    [['restore', 'x', '--store', 'y', '--ignore', 'everything']],
    [['restore', 'x', '--store', 'y', '--clock', 'wall']],
    [['restore', 'x', '--store', 'y', '--generation', 'next']],
    [['snapshot', 'one']],
    [['snapshot', 'one', '--store', 'x', '--then', 'explode']],
    [['dirty']],
    [['dirty', 'one', '--tracker', 'psychic']],
    [['dirty', 'one', '--every', 'soon']],
    [['dirty', 'one', '--count', '0']],
    [['run', '--guest', 'counter', '--dirty-ring', '0']],
    [['pause']],
    [['pause', 'one', 'two']],
  ])('does not understand %j', async (args) => {
    expect(await failure(args)).toBeInstanceOf(CommanderError);
  });

  it.each([
    [['run'], /--guest NAME, --bare FILE and --kernel FILE/],
    [['run', '--guest', 'counter', '--kernel', 'x'], /one of/],
    [['run', '--guest', 'bogus'], /there are counter, /],
    [['run', '--guest', 'pit', '--ring', '3'], /ring 0, not 3/],
    [['run', '--guest', 'counter', '--load-address', '0'], /--load-address goes with --bare/],
    [['run', '--kernel', 'x', '--ring', '3'], /--ring goes with/],
    [['run', '--bare', 'x', '--initrd', 'y'], /--initrd goes with --kernel/],
    [['run', '--guest', 'counter', '--detach'], /--detach needs --name/],
    [['run', '--guest', 'counter', '--name', 'one', '--paused'], /--paused goes with --detach/],
  ])('refuses %j with what to do', async (args, message) => {
    const error = await failure(args);
    expect(error).toBeInstanceOf(KvmsnapError);
    expect(error).toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(message),
    });
  });

  it('has every command, each with a description', () => {
    const { commands } = buildProgram(new Exit());
    expect(commands.map((command) => command.name())).toEqual([
      ...['doctor', 'demo', 'run', 'ps', 'console', 'pause', 'resume', 'stop', 'snapshot', 'dirty'],
      ...['restore', 'flatten', 'list', 'delete', 'gc', 'inspect', 'verify'],
    ]);
    for (const command of commands) expect(command.description()).not.toBe('');
  });

  it('has --json on every command', () => {
    for (const command of buildProgram(new Exit()).commands) {
      expect(command.options.map(({ long }) => long)).toContain('--json');
    }
  });
});
