import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandLine, finish, printed } from './command.js';

let kvmsnap: CommandLine;
beforeEach(() => {
  kvmsnap = new CommandLine();
});
afterEach(() => kvmsnap.clean());

const start = (name: string, ...more: string[]) => {
  const run = ['run', '--guest', 'counter', '--no-irqchip', '--memory', '16M', '--detach'];
  return kvmsnap.json(...run, '--name', name, ...more);
};

describe('dirty', () => {
  it('gives as many epochs as asked for, by each tracker', async () => {
    await start('one');
    for (const tracker of ['bitmap', 'bitmap-manual', 'uffd-wp', 'pagemap', 'cow']) {
      const every = ['--tracker', tracker, '--every', '20ms', '--count', '3'];
      // A guest that gets no processor for some epochs writes nothing in them.
      let pages = 0;
      while (pages === 0) {
        const epochs = await kvmsnap.json('dirty', 'one', ...every);
        expect(epochs).toHaveLength(3);
        for (const epoch of epochs) {
          pages += epoch.pages;
          expect(epoch.heat).toHaveLength(64);
          expect(epoch.slots).toMatchObject([{ slot: 0, gpa: '0x0', size: 4096 }]);
        }
      }
    }
  });

  it('by ring needs a machine with one', async () => {
    await start('plain');
    await start('ringed', '--dirty-ring', '1024');
    const plain = await kvmsnap.run('dirty', 'plain', '--tracker', 'ring', '--count', '1');
    expect(plain).toMatchObject({ code: 1, stdout: '' });
    expect(plain.stderr).toMatch(/dirtyRing/);
    const ringed = await kvmsnap.run(
      'dirty',
      'ringed',
      '--tracker',
      'ring',
      '--count',
      '2',
      '--csv',
    );
    expect(ringed).toMatchObject({ code: 0, stderr: '' });
    expect(ringed.stdout).toMatch(/^at_ms,[a-z_,]+\n([0-9.]+,){4}[0-9.]+\n([0-9.]+,){4}[0-9.]+\n$/);
    // Tracking is over: another may begin.
    await kvmsnap.json('dirty', 'ringed', '--tracker', 'pagemap', '--count', '1');
  });

  it('goes on until it is interrupted, and lets the machine run on', async () => {
    await start('one');
    const child = kvmsnap.start(['dirty', 'one', '--every', '10ms', '--json']);
    await printed(child, /heat.*\n.*heat/s);
    child.kill('SIGINT');
    expect(await finish(child)).toMatchObject({ code: 130, stderr: '' });
    expect((await kvmsnap.json('ps'))[0].status).toBe('running');
    expect(await kvmsnap.json('dirty', 'one', '--count', '1')).toHaveLength(1);
  });

  it('ends with the machine', async () => {
    await start('one');
    const child = kvmsnap.start(['dirty', 'one', '--every', '10ms', '--plot']);
    const ended = finish(child);
    await printed(child, /█/);
    await kvmsnap.run('stop', 'one');
    expect(await ended).toMatchObject({ code: 0, stderr: '' });
  });
});
