/** The numbers that the guest `counter` prints, one a line from 1. */

/**
 * The last number of which a whole line was printed, 0 before the first. Throws if the lines are not
 * 1, 2, 3, … without gap: the proof that nothing was lost or said twice.
 */
export function lastNumber(serial: string, first = 1): number {
  const lines = serial.split('\n').slice(0, -1);
  lines.forEach((line, i) => {
    if (line !== String(first + i)) {
      throw new Error(
        `the guest printed ${JSON.stringify(line)} where ${first + i} should be: its serial ` +
          'stream is broken',
      );
    }
  });
  return first + lines.length - 1;
}
