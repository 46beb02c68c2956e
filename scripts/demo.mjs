// Sets everything up from a fresh clone and runs the demo, which needs /dev/kvm.
//
//   node scripts/demo.mjs [--json]
import { spawnSync } from 'node:child_process';
import { setupOrExit } from './setup.mjs';

setupOrExit();
const main = new URL('../dist/cli/main.js', import.meta.url).pathname;
const result = spawnSync(process.execPath, [main, 'demo', ...process.argv.slice(2)], {
  stdio: 'inherit',
});
process.exit(result.status ?? 1);
