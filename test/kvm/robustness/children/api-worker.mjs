// An episode in a worker, which is ended in the middle of it.
import { workerData } from 'node:worker_threads';
import { episode } from './api-episode.mjs';

const { exitAfterMs, ...options } = workerData;
if (exitAfterMs !== undefined) setTimeout(() => process.exit(3), exitAfterMs);
const { faults, lines } = (await episode(options)).calls;
if (faults.length > 0) throw new Error([...faults, ...lines].join('\n'));
