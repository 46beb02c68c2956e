// What a person reads: the job's output, marked by shard where there are several, and why a run failed.

import { existsSync, readFileSync } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { describeTasks } from './tasks.mjs';

const TAIL_LINES = 60;
// After a timeout the log ends with the kernel's answers to our questions, and the list of processes
// says more.
const TAIL_LINES_WITH_TASKS = 20;

export const EXIT_TIMEOUT = 124;
export const EXIT_HOST_FAILED = 125;
export const EXIT_INTERRUPTED = 130;

/** Writes chunks to `stream` with `prefix` before each line, whole lines only. */
export function linePrefixer(stream, prefix) {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  return {
    write(chunk) {
      const lines = (rest + decoder.write(chunk)).split('\n');
      rest = lines.pop();
      if (lines.length > 0) stream.write(lines.map((line) => `${prefix}${line}\n`).join(''));
    },
    end() {
      rest += decoder.end();
      if (rest !== '') stream.write(`${prefix}${rest}\n`);
      rest = '';
    },
  };
}

export function exitStatusOf(result) {
  if (result.kind === 'exited') return result.status;
  if (result.kind === 'timeout' && result.limit === 'job') return EXIT_TIMEOUT;
  return result.kind === 'aborted' ? EXIT_INTERRUPTED : EXIT_HOST_FAILED;
}

function readLog(path) {
  return existsSync(path) ? readFileSync(path, 'utf8').replaceAll('\r', '') : '';
}

// The EPYC model has features that QEMU does not emulate; it says so at every start.
function qemuMessages(output) {
  const lines = output.trimEnd().split('\n');
  return lines.filter((line) => !line.includes("TCG doesn't support requested feature"));
}

function reasonOf(result, log, timeoutMs) {
  switch (result.kind) {
    case 'timeout':
      return result.limit === 'boot'
        ? 'the emulated host did not come up in time'
        : `the job was still running after ${timeoutMs / 1000} s and was killed`;
    case 'failed':
      return `the emulated host could not be made ready: ${result.reason}`;
    default: {
      const panic = /Kernel panic - not syncing: .*/.exec(log)?.[0];
      return `the emulated host died before the job ended: ${panic ?? result.reason}`;
    }
  }
}

/** Lines that tell why a run failed; none if the job just ended, whatever its exit status. */
export function failureReport(result, { serialLog, timeoutMs }) {
  if (result.kind === 'exited' || result.kind === 'aborted') return [];
  const log = readLog(serialLog);
  const tasks = describeTasks(log);
  const tailLines = tasks.length > 0 ? TAIL_LINES_WITH_TASKS : TAIL_LINES;
  const tail = log.trimEnd().split('\n').slice(-tailLines);
  const section = (title, lines) =>
    lines.some((line) => line.trim() !== '') ? [`--- ${title}`, ...lines] : [];
  return [
    `FAILED: ${reasonOf(result, log, timeoutMs)}`,
    ...section('what QEMU said', qemuMessages(result.qemuOutput)),
    ...section('last lines of the serial log', tail),
    ...section('processes inside when time was up', tasks),
    `--- whole serial log: ${serialLog}`,
  ];
}
