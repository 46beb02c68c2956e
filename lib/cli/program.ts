/** The whole command line, as commander knows it. */
import { Command } from 'commander';
import { product } from '../snapshot/product.js';
import { addConsole } from './commands/console.js';
import { addDemo } from './commands/demo.js';
import { addDirty } from './commands/dirty.js';
import { addDoctor } from './commands/doctor.js';
import { addFlatten } from './commands/flatten.js';
import { addInspect } from './commands/inspect.js';
import { addPauseAndResume } from './commands/power.js';
import { addPs } from './commands/ps.js';
import { addRestore } from './commands/restore.js';
import { addRun } from './commands/run.js';
import { addSnapshot } from './commands/snapshot.js';
import { addStop } from './commands/stop.js';
import { addStoreCommands } from './commands/store.js';
import { addVerify } from './commands/verify.js';
import type { Exit } from './exit.js';

const EPILOGUE = `
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 no usable /dev/kvm; 4 snapshot refused;
128+n ended by signal n. run, restore and console give the guest's own exit code.
KVMSNAP_DEBUG=1 prints stacks of errors.`;

export function buildProgram(exit: Exit): Command {
  const program = new Command('kvmsnap')
    .description('Run micro-VMs on /dev/kvm; snapshot a running machine; restore it elsewhere.')
    .version(product().version)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      // One line for errors, in the same form as all others: main prints it.
      writeErr: () => undefined,
    })
    .addHelpText('after', EPILOGUE);
  addDoctor(program, exit);
  addDemo(program);
  addRun(program, exit);
  addPs(program);
  addConsole(program, exit);
  addPauseAndResume(program);
  addStop(program);
  addSnapshot(program);
  addDirty(program);
  addRestore(program, exit);
  addFlatten(program);
  addStoreCommands(program);
  addInspect(program);
  addVerify(program);
  return program;
}
