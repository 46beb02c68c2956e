// Which tests began and which ended, written as they do: what is left of a run that leaves no report.

import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { retriesOf } from './retries.mjs';

const nameOf = (test) => `${test.module.relativeModuleId}: ${test.fullName}`;

/** A reporter of vitest's. Writes to the file that KVMSNAP_JOURNAL names. */
export default class JournalReporter {
  #file = process.env.KVMSNAP_JOURNAL;

  onTestCaseReady(test) {
    this.#write({ began: nameOf(test) });
  }

  onTestCaseResult(test) {
    const retries = retriesOf(test);
    this.#write({
      ended: nameOf(test),
      state: test.result().state,
      ...(retries > 0 && { retries }),
    });
  }

  #write(entry) {
    if (this.#file) appendFileSync(this.#file, `${JSON.stringify(entry)}\n`);
  }
}

// The last line of a machine that was killed may be half a line.
const wholeLines = (text) => text.split('\n').slice(0, -1);

/** The names of tests that began and did not end, how many ended in which state, and which were tried again. */
export function readJournal(file) {
  const there = file !== undefined && existsSync(file);
  const lines = there ? wholeLines(readFileSync(file, 'utf8')) : [];
  const running = new Set();
  const states = { passed: 0, failed: 0, skipped: 0 };
  const retried = [];
  for (const { began, ended, state, retries } of lines.map((line) => JSON.parse(line))) {
    if (retries !== undefined) retried.push({ name: ended, retries });
    if (began !== undefined) running.add(began);
    else if (running.delete(ended)) states[state]++;
  }
  return { running: [...running], retried, ...states };
}
