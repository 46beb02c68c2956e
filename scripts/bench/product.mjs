// Measures a group of kvmsnap's figures, in a process of its own that is gone when the floor is measured: from its
// second machine on kvmsnap keeps KVM switched on (native/vmm/kept_vm.h), which would make every VM of the host
// quicker, the floor's too.
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const CHILD = fileURLToPath(import.meta.url);
// V8 compiles what it has run often enough, and what comes before is not counted: of work in milliseconds, and
// of work in which JavaScript's part shows.
const WARM_UP = 10;
const WARM_UP_OF_SHORT = 200;

/** Samples in microseconds, by name. */
export function measureProduct({ name, figures }, settings) {
  const names = figures.map((figure) => figure.name);
  const child = fork(CHILD, [JSON.stringify({ name, names, settings })]);
  const stop = () => child.kill('SIGKILL');
  process.once('exit', stop);
  return new Promise((resolve, reject) => {
    child.once('message', (samples) => resolve(new Map(samples)));
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      process.off('exit', stop);
      reject(new Error(`group ${name} ended with ${signal ?? `status ${code}`}`));
    });
  });
}

async function measure({ name, names, settings }) {
  const samples = new Map();
  const group = await import(`./groups/${name}.mjs`);
  await group.measure({
    ...settings,
    runs: settings.runs + WARM_UP,
    shortRuns: settings.runs + WARM_UP_OF_SHORT,
    now: () => performance.now() * 1000,
    wanted: (figure) => names.includes(figure),
    record(figure, us) {
      samples.set(figure, [...(samples.get(figure) ?? []), us]);
    },
  });
  // Long work is done `slowRuns` times, and is no slower the first time.
  return [...samples].map(([figure, all]) => [
    figure,
    all.length > settings.runs ? all.slice(-settings.runs) : all,
  ]);
}

if (process.argv[1] === CHILD) {
  // Not without who asked.
  process.once('disconnect', () => process.exit(1));
  const samples = await measure(JSON.parse(process.argv[2]));
  process.send(samples, () => process.exit(0));
}
