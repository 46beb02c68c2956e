/**
 * Checks of arguments that several calls take. A call makes them before it does anything: before a guest
 * stands, a page is brought in, or a file is made. Each throws `ERR_INVALID_ARGUMENT`.
 */
import { requireArgument } from './errors.js';
import { isTag } from './snapshot/format.js';

/** Options are an object, or left out. */
export function requireOptions(options: unknown): void {
  requireArgument(
    options === undefined || (typeof options === 'object' && options !== null),
    'options must be an object',
  );
}

export function requireSignal(signal: unknown): void {
  requireArgument(
    signal === undefined || signal instanceof AbortSignal,
    'signal must be an AbortSignal',
  );
}

export function requireFunction(value: unknown, name: string): void {
  requireArgument(value === undefined || typeof value === 'function', `${name} must be a function`);
}

export function requireFlag(value: unknown, name: string): void {
  requireArgument(
    value === undefined || typeof value === 'boolean',
    `${name} must be true or false`,
  );
}

export function requireTag(tag: unknown): void {
  requireArgument(
    tag === undefined || (typeof tag === 'string' && isTag(tag)),
    `${JSON.stringify(tag)} is no tag: letters and digits, with - . _ between them, at most 128`,
  );
}

export function requireAnnotations(annotations: unknown): void {
  requireArgument(
    annotations === undefined ||
      (typeof annotations === 'object' &&
        annotations !== null &&
        Object.entries(annotations).every(
          ([key, text]) => key.length <= 1024 && typeof text === 'string' && text.length <= 65_536,
        )),
    'annotations must be text by key, of at most 65536 characters each',
  );
}
