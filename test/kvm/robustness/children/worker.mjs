// Does one of the operations until it is ended.
import { parentPort, workerData } from 'node:worker_threads';
import { OPERATIONS } from './operations.mjs';

const { operation, directory, end } = workerData;
let told = false;
OPERATIONS[operation](() => {
  if (told) return;
  told = true;
  parentPort.postMessage('go');
  if (end === 'exit') setTimeout(() => process.exit(3), 1);
  if (end === 'throw')
    setTimeout(() => {
      throw new Error('uncaught on purpose');
    }, 1);
}, directory);
