// Sets everything up from a fresh clone and runs every test tier.
//
//   node scripts/test.mjs
import { setupOrExit } from './setup.mjs';

setupOrExit();
// In this process, so that what ends it ends them. Not before: it needs what was set up.
await import('./test/all.mjs');
