/**
 * JSON as hostile input, parsed in steps. `JSON.parse` holds the event loop until it is through, and takes
 * the last of two equal keys, where another reader may take the first: duplicates are refused, as is deep
 * nesting.
 */
import { formatError } from './failures.js';
import { LIMITS } from './format.js';
import { finish, ROUNDS_PER_STEP, type Steps } from './steps.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const SPACE = /[ \t\r\n]*/y;
/** Most strings; others, with escapes or what must be escaped, are left to `JSON.parse`. */
const PLAIN_STRING = /"[ !#-[\]-\uffff]*"/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WORDS = [
  ['true', true],
  ['false', false],
  ['null', null],
] as const;

/** Parses UTF-8 JSON; `ERR_SNAPSHOT_FORMAT` naming `what` otherwise. All at once: see {@link jsonSteps}. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  return finish(jsonSteps(bytes, what));
}

/** `mostItems`: how many an array may have. An object has at most `LIMITS.keys`. */
export function jsonSteps(
  bytes: Uint8Array,
  what: string,
  mostItems = Number.POSITIVE_INFINITY,
): Steps<unknown> {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw formatError(what, 'not UTF-8', cause);
  }
  return new Parser(text, what, mostItems).value();
}

type JsonObject = { [key: string]: unknown };
/** A container that is being read. */
type Frame =
  | { items: unknown[]; object?: undefined }
  | { object: JsonObject; items?: undefined; keys: number; key: string };

class Parser {
  readonly #text: string;
  readonly #what: string;
  readonly #mostItems: number;
  #at = 0;

  constructor(text: string, what: string, mostItems: number) {
    this.#text = text;
    this.#what = what;
    this.#mostItems = mostItems;
  }

  *value(): Steps<unknown> {
    const open: Frame[] = [];
    for (let round = 1; ; round++) {
      if (round % ROUNDS_PER_STEP === 0) yield;
      let value: unknown;
      const start = this.#next();
      if (start === '{' || start === '[') {
        if (open.length >= LIMITS.depth) {
          throw this.#bad(`nested deeper than ${LIMITS.depth} levels`);
        }
        this.#at++;
        const frame: Frame =
          start === '{' ? { object: {}, keys: 0, key: '' } : { items: [] as unknown[] };
        if (this.#next() !== (start === '{' ? '}' : ']')) {
          if (frame.object) this.#readKey(frame);
          open.push(frame);
          continue;
        }
        this.#at++;
        value = frame.object ?? frame.items;
      } else {
        value = this.#scalar(start);
      }
      // It ends as many containers as it is the last of.
      for (;;) {
        const frame = open.at(-1);
        if (frame === undefined) {
          if (this.#next() !== '') throw this.#bad('not JSON: text after the value');
          return value;
        }
        if (this.#put(frame, value)) break;
        open.pop();
        value = frame.object ?? frame.items;
      }
    }
  }

  /** Whether another value follows in it. */
  #put(frame: Frame, value: unknown): boolean {
    if (frame.object) frame.object[frame.key] = value;
    else if (frame.items.push(value) > this.#mostItems) {
      throw this.#bad(`an array of more than ${this.#mostItems} items`);
    }
    const follows = this.#next();
    if (follows !== ',' && follows !== (frame.object ? '}' : ']')) throw this.#bad('not JSON');
    this.#at++;
    if (follows !== ',') return false;
    if (frame.object) this.#readKey(frame);
    return true;
  }

  #readKey(frame: Frame & { object: JsonObject }): void {
    if (this.#next() !== '"') throw this.#bad('not JSON: a key is expected');
    // "a" and "\u0061" are the same key.
    const key = this.#string();
    if (key === '__proto__') throw this.#bad('key __proto__');
    if (Object.hasOwn(frame.object, key)) {
      throw this.#bad(`duplicate key ${JSON.stringify(key).slice(0, 80)}`);
    }
    frame.keys++;
    if (frame.keys > LIMITS.keys) throw this.#bad(`an object of more than ${LIMITS.keys} keys`);
    if (this.#next() !== ':') throw this.#bad('not JSON');
    this.#at++;
    frame.key = key;
  }

  #scalar(start: string): unknown {
    if (start === '"') return this.#string();
    for (const [word, value] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    const number = this.#match(NUMBER);
    if (number === undefined) throw this.#bad('not JSON');
    return Number(number);
  }

  #string(): string {
    const plain = this.#match(PLAIN_STRING);
    if (plain !== undefined) return plain.slice(1, -1);
    const start = this.#at;
    let end = start + 1;
    for (; this.#text.charCodeAt(end) !== QUOTE; end++) {
      if (this.#text.charCodeAt(end) === BACKSLASH) end++;
      if (end >= this.#text.length) throw this.#bad('not JSON: a string has no end');
    }
    this.#at = end + 1;
    try {
      return JSON.parse(this.#text.slice(start, end + 1)) as string;
    } catch (cause) {
      throw this.#bad('not JSON: a bad string', cause);
    }
  }

  /** The next character that is no space; empty at the end. */
  #next(): string {
    this.#match(SPACE);
    return this.#text[this.#at] ?? '';
  }

  #match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #bad(problem: string, cause?: unknown): Error {
    return formatError(this.#what, problem, cause);
  }
}
