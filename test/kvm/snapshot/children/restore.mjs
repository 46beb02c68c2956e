// Restores a counter and gives, as JSON, the lines it sends first: STORE TAG LINES.
import { Snapshot } from '../../../../lib/index.js';

const [store, tag, lines] = process.argv.slice(2);
const snapshot = await Snapshot.open(store, tag);
const vm = await snapshot.restore();
let text = '';
const done = new Promise((resolve) => {
  vm.console.on('data', (bytes) => {
    text += bytes;
    if (text.split('\n').length > Number(lines)) resolve();
  });
});
await vm.start();
await done;
await vm.close();
snapshot.close();
process.stdout.write(JSON.stringify(text));
