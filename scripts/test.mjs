// Sets everything up from a fresh clone and runs every test tier.
//
//   node scripts/test.mjs
import { spawnSync } from 'node:child_process';
import { setupOrExit } from './setup.mjs';

setupOrExit();
const all = new URL('./test/all.mjs', import.meta.url).pathname;
const result = spawnSync(process.execPath, [all, ...process.argv.slice(2)], { stdio: 'inherit' });
process.exit(result.status ?? 1);
