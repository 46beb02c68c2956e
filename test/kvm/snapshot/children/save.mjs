// Saves a running machine over and over until it is killed: STORE PREFIX.
import { Vm } from '../../../../lib/index.js';
import { guestPath } from '../../../../lib/native/guests.js';

const [store, prefix] = process.argv.slice(2);
const vm = await Vm.create({
  memory: 16 << 20,
  irqchip: false,
  bare: { image: guestPath('writer'), mode: 'long', ring: 3 },
});
await vm.vcpus[0].setRegs({ r15: 2000n });
await vm.start();
process.stdout.write('ready\n');
for (let i = 0; ; i++) {
  (await vm.snapshot({ store, tag: `${prefix}-${i}` })).close();
  process.stdout.write(`${i}\n`);
}
