// Random calls, many of them at once; then all is closed, and every call has to settle.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { Calls } from './api-calls.mjs';
import { World } from './api-world.mjs';
import { Choices } from './random.mjs';

/** Gives what was called and what came of it, and whether something is left to the garbage collector; with `hangMs` less than all settle in, which did not. */
export async function episode({ seed, steps, directory, hangMs }) {
  const calls = new Calls();
  const world = new World(calls, directory);
  const uncaught = (error) => calls.fault(`uncaught: ${error?.stack ?? error}`);
  process.on('uncaughtException', uncaught);
  process.on('unhandledRejection', uncaught);
  try {
    await world.open();
    for (let step = 0; step < steps; step++) {
      const choices = new Choices(seed, step);
      const pause = choices.below(8);
      const done = world.step(choices);
      // A call that the guest has to answer may take until the end.
      if (pause === 0) await turn();
      else if (pause === 1) await sleep(choices.below(4));
      else if (pause < 5) await Promise.race([done, sleep(20)]);
    }
    world.end(new Choices(seed, steps));
    const deadline = performance.now() + hangMs;
    while (calls.open.length > 0 && performance.now() < deadline) await sleep(2);
    for (const name of calls.open) calls.fault(`still open ${hangMs} ms after the end: ${name}`);
    // What was left of timers and refusals that nobody heard.
    await sleep(15);
  } finally {
    process.off('uncaughtException', uncaught);
    process.off('unhandledRejection', uncaught);
  }
  return { calls, forgets: world.forgets };
}
