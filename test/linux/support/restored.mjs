// Restores a snapshot in a process of its own and connects the guest's console to its standard
// streams: `node restored.mjs STORE REF`. Over IPC it takes { snapshot: { tag } }, and tells
// { started }, { saved }, { stopped } or { failed }. Uses the package as it is built.
import { Snapshot } from '../../../dist/index.js';

const [store, ref] = process.argv.slice(2);
const tell = (message) => process.send(message);

const snapshot = await Snapshot.open(store, ref);
const vm = await snapshot.restore();
vm.console.pipe(process.stdout);
process.stdin.pipe(vm.console);
process.on('message', async ({ snapshot: { tag } }) => {
  try {
    const saved = await vm.snapshot({ store, tag });
    tell({ saved: saved.stats });
  } catch (error) {
    tell({ failed: String(error) });
  }
});
await vm.start();
tell({ started: true });
const { reason, code, error } = await vm.wait();
tell({ stopped: { reason, code, error: error && String(error) } });
await vm.close();
snapshot.close();
process.stdin.destroy();
process.disconnect();
