/** Entry of the host process of a named machine. */
import { hostMachine } from './control/host.js';

// A pinned directory could not be unmounted while the machine runs. All paths come absolute.
process.chdir('/');
process.umask(0o077);
process.once('message', (message) => {
  void hostMachine(message).then(() => process.exit());
});
