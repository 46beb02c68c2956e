/** How the command line fails: one line, and an exit code. */
import { KvmsnapError } from '../errors.js';
import { complain, printable } from './output.js';

const HINTS: Partial<Record<KvmsnapError['code'], string>> = {
  ERR_NO_KVM: 'Run `kvmsnap doctor` for what this host has.',
  ERR_KVM_CAPABILITY: 'Run `kvmsnap doctor` for what this host has.',
  ERR_MACHINE_NAME: 'Run `kvmsnap ps` for the machines that are there.',
};

/** `kvmsnap: message hint`, on one line. */
export function errorLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const hint = error instanceof KvmsnapError ? HINTS[error.code] : undefined;
  const sentence = message.replace(/\s*\n\s*/g, ' ').trim();
  const end = hint === undefined || /[.!?]$/.test(sentence) ? '' : '.';
  return `kvmsnap: ${printable(sentence)}${end}${hint === undefined ? '' : ` ${hint}`}`;
}

/** On stderr; with `KVMSNAP_DEBUG` set, with the stack and all causes. */
export function report(error: unknown): void {
  complain(errorLine(error));
  if (!process.env.KVMSNAP_DEBUG) return;
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    complain(cause.stack ?? cause.message);
  }
}
