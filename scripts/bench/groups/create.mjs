// New machines with a guest loaded, and their end.
import { createMachine, figureOf, runToReady, setPages } from '../machines.mjs';

export async function measure({ memory, runs, record, now }) {
  for (const kind of ['least', 'full']) {
    for (let i = 0; i < runs; i++) {
      const start = now();
      const vm = await createMachine(kind, memory);
      const ready = now();
      await setPages(vm, 10);
      const entry = now();
      await runToReady(vm);
      const exit = now();
      record(figureOf(kind, 'cold_create_ready'), ready - start);
      record(figureOf(kind, 'cold_create_first_exit'), ready - start + (exit - entry));
      const closing = now();
      await vm.close();
      record(figureOf(kind, 'close'), now() - closing);
    }
  }
}
