// A machine that has written some pages goes back to its snapshot.
import {
  createMachine,
  figureOf,
  fillMemory,
  runToPass,
  runToReady,
  setPages,
} from '../machines.mjs';

export async function measure({ memory, shortRuns, record, now }) {
  for (const kind of ['least', 'full']) {
    const vm = await createMachine(kind, memory);
    fillMemory(vm, memory);
    for (const pages of [10, 100, 1000]) {
      await setPages(vm, pages);
      const snapshot = await vm.snapshot();
      for (let i = -1; i < shortRuns; i++) {
        await runToReady(vm);
        await runToPass(vm);
        const start = now();
        await vm.reset(snapshot);
        if (i >= 0) record(figureOf(kind, `reset_${pages}_pages`), now() - start);
      }
      snapshot.close();
    }
    await vm.close();
  }
}
