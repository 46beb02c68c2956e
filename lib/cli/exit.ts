import { EXIT } from './exit-codes.js';

/** The exit code that a command asks for. One that throws gets its error's. */
export class Exit {
  code: number = EXIT.ok;
}
