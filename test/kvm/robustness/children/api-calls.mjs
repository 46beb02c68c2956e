// What calls came to: each settles, and what it is refused with is a KvmsnapError.
import { ERROR_CODES, KvmsnapError } from '../../../../lib/index.js';

/** What callbacks of the tests throw: it comes back from the calls that it was given to. */
export class OnPurpose extends Error {}

export class Calls {
  /** Open ones, by number. */
  #open = new Map();
  #lines = [];
  #faults = [];
  #count = 0;
  #outcomes = new Map();

  /** Notes a call and hands on what it gives; undefined when it was refused. */
  async of(name, begin, { mayThrow = false, may = () => false } = {}) {
    const number = this.#count++;
    this.#lines.push(`${number} ${name}`);
    this.#open.set(number, name);
    let promise;
    try {
      promise = begin();
      if (!mayThrow && !(promise instanceof Promise)) this.#fault(number, name, 'gave no promise');
    } catch (error) {
      if (!mayThrow) this.#fault(number, name, `threw instead of rejecting: ${error}`);
      promise = Promise.reject(error);
    }
    let result;
    try {
      result = await promise;
      this.#end(number, name, 'fine', 'fine');
    } catch (error) {
      const good = error instanceof KvmsnapError && Object.hasOwn(ERROR_CODES, error.code);
      if (!good && !may(error)) this.#fault(number, name, `was refused with ${textOf(error)}`);
      if (good) this.#end(number, name, `${error.code}: ${error.message}`, error.code);
      else this.#end(number, name, textOf(error), 'on purpose');
    }
    return result;
  }

  get open() {
    return [...this.#open].map(([number, name]) => `${number} ${name}`);
  }

  get count() {
    return this.#count;
  }

  get faults() {
    return this.#faults;
  }

  get outcomes() {
    return Object.fromEntries(this.#outcomes);
  }

  get lines() {
    return this.#lines;
  }

  fault(text) {
    this.#faults.push(text);
  }

  #end(number, name, outcome, code) {
    this.#open.delete(number);
    this.#lines.push(`${number} ${name} -> ${outcome}`);
    this.#outcomes.set(code, (this.#outcomes.get(code) ?? 0) + 1);
  }

  #fault(number, name, what) {
    this.#faults.push(`${number} ${name} ${what}`);
  }
}

const textOf = (error) => (error instanceof Error ? (error.stack ?? String(error)) : String(error));
