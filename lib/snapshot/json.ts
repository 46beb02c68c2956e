/**
 * JSON as hostile input. `JSON.parse` takes the last of two equal keys, where another reader may
 * take the first, so duplicates are refused, as is deep nesting.
 */
import { formatError } from './failures.js';
import { LIMITS } from './format.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;

/** Parses UTF-8 JSON; `ERR_SNAPSHOT_FORMAT` naming `what` otherwise. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw formatError(what, 'not UTF-8', cause);
  }
  // Before parsing: what is too deep is never built.
  const problem = structureProblem(text);
  if (problem) throw formatError(what, problem);
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw formatError(what, 'not JSON', cause);
  }
  return value;
}

/** Finds too deep nesting and duplicate keys. Text that is not JSON may pass: the parser is next. */
function structureProblem(text: string): string | undefined {
  const keys: (Set<string> | undefined)[] = [];
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
      case 0x5b: // [
        if (keys.length >= LIMITS.depth) return `nested deeper than ${LIMITS.depth} levels`;
        keys.push(text.charCodeAt(at) === 0x7b ? new Set() : undefined);
        break;
      case 0x7d: // }
      case 0x5d: // ]
        keys.pop();
        break;
      case QUOTE: {
        const end = stringEnd(text, at);
        if (end < 0) return 'not JSON: a string has no end';
        const scope = keys.at(-1);
        if (scope && text.charCodeAt(afterSpace(text, end + 1)) === COLON) {
          const key = unescaped(text.slice(at, end + 1));
          if (key === undefined) return 'not JSON: a bad key';
          if (key === '__proto__') return 'key __proto__';
          if (scope.has(key)) return `duplicate key ${JSON.stringify(key).slice(0, 80)}`;
          scope.add(key);
        }
        at = end;
        break;
      }
    }
  }
  return undefined;
}

function stringEnd(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === BACKSLASH) at++;
    else if (unit === QUOTE) return at;
  }
  return -1;
}

function afterSpace(text: string, at: number): number {
  let next = at;
  while (next < text.length && ' \t\r\n'.includes(text[next] as string)) next++;
  return next;
}

function unescaped(quoted: string): string | undefined {
  // "a" and "\u0061" are the same key.
  if (!quoted.includes('\\')) return quoted.slice(1, -1);
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return undefined;
  }
}
