/** Entry of the demo's second process: `restored-main.js STORE REF LINES`, forked with IPC. */
import { packError } from '../control/protocol.js';
import { restoreAndCount } from './restored.js';

const [store = '', ref = '', lines = ''] = process.argv.slice(2);
let message: unknown;
try {
  message = { ok: true, value: await restoreAndCount(store, ref, Number(lines)) };
} catch (error) {
  message = { ok: false, error: packError(error) };
}
process.send?.(message, undefined, {}, () => process.exit());
