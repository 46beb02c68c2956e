/**
 * A guest process that counts on the console and leaves a file for each number, and what of it can
 * be foretold: all it writes is a function of the number, so that every byte can be checked.
 */
import { createHash } from 'node:crypto';

const LINES_PER_FILE = 400;

/** Runs until there is /tmp/stop. It rests, so that snapshots meet an idle guest too. */
export const COUNTER = `#!/bin/sh
mkdir /tmp/files
cd /tmp/files
n=0
while [ ! -e /tmp/stop ]; do
  n=$((n + 1))
  seq $n $((n + ${LINES_PER_FILE - 1})) > $n
  sha256sum $n >> /tmp/sums
  echo "$(cut -d' ' -f1 /proc/uptime) $(date +%s)" >> /tmp/times
  echo "count $n"
  sleep 0.1
done
echo "stopped $n"
`;

/** Fails on a file that is not what its checksum says, or a clock that went backwards. */
export const CHECK = `#!/bin/sh
cd /tmp/files || exit 1
sha256sum -c -s /tmp/sums || exit 1
[ "$(ls | wc -l)" = "$(wc -l < /tmp/sums)" ] || exit 1
awk '$1 < up || $2 < date { exit 1 } { up = $1; date = $2 }' /tmp/times || exit 1
echo "files $(ls | wc -l) sums $(sha256sum < /tmp/sums | cut -c1-64)"
`;

/** The line that a console shows from \`counter &\` on: all of it, up to \`last\`. */
export function countsUpTo(last: number): string {
  return Array.from({ length: last }, (_, index) => `count ${index + 1}\n`).join('');
}

/** What \`check-files\` prints when it has found all files from 1 to \`last\` whole. */
export function wholeFiles(last: number): string {
  const sums = createHash('sha256');
  for (let n = 1; n <= last; n++) {
    const lines = Array.from({ length: LINES_PER_FILE }, (_, index) => `${n + index}\n`).join('');
    sums.update(`${createHash('sha256').update(lines).digest('hex')}  ${n}\n`);
  }
  return `files ${last} sums ${sums.digest('hex')}\n`;
}
