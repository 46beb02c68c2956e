/** A progress bar on stderr, for work on bytes. None where nobody watches. */
import { SingleBar } from 'cli-progress';
import { formatBytes, printable } from './output.js';

export interface Progress extends Disposable {
  update(doneBytes: number, totalBytes: number): void;
}

export function progressBar(label: string, enabled: boolean): Progress {
  if (!enabled || !process.stderr.isTTY) return { update() {}, [Symbol.dispose]() {} };
  const bar = new SingleBar({
    format: `${printable(label)} [{bar}] {percentage}%  {value} of {total}`,
    formatValue: (value, _options, type) =>
      type === 'value' || type === 'total' ? formatBytes(value) : String(value),
    stream: process.stderr,
    clearOnComplete: true,
    // An exception that passes must not leave a terminal without its cursor.
    hideCursor: null,
    barsize: 30,
    barCompleteChar: '#',
    barIncompleteChar: '.',
  });
  let started = false;
  return {
    update(done, total) {
      if (!started) bar.start(total, done);
      started = true;
      bar.setTotal(total);
      bar.update(done);
    },
    [Symbol.dispose]() {
      if (started) bar.stop();
    },
  };
}
