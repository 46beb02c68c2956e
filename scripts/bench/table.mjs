// The figures as text.
import { formatSize } from './sizes.mjs';

/** Microseconds with three digits or so, in a unit that fits. */
export function formatTime(us) {
  if (us >= 999_500) return `${(us / 1e6).toFixed(2)} s`;
  if (us >= 99_950) return `${(us / 1000).toFixed(0)} ms`;
  if (us >= 9_995) return `${(us / 1000).toFixed(1)} ms`;
  if (us >= 999.5) return `${(us / 1000).toFixed(2)} ms`;
  return us >= 99.95 ? `${us.toFixed(0)} µs` : `${us.toFixed(1)} µs`;
}

const COLUMNS = ['figure', 'p50', 'p99', 'N', 'floor p50', 'ratio', 'by round', 'aim'];

const verdict = (good, aim) => `${good ? 'within' : 'beyond'} ${aim}`;

function aims({ p50_us, ratio, aim, limit_us }) {
  return [
    ...(aim === undefined || ratio === null ? [] : [verdict(ratio <= aim, aim.toFixed(2))]),
    ...(limit_us === undefined ? [] : [verdict(p50_us <= limit_us, formatTime(limit_us))]),
  ].join(', ');
}

function cells(result) {
  const { name, p50_us, p99_us, n, floor_us, ratio, ratio_lowest, ratio_highest } = result;
  const measured = [name, formatTime(p50_us), formatTime(p99_us), String(n)];
  if (ratio === null) return [...measured, '-', '-', '-', aims(result)];
  return [
    ...measured,
    formatTime(floor_us),
    ratio.toFixed(2),
    `${ratio_lowest.toFixed(2)} - ${ratio_highest.toFixed(2)}`,
    aims(result),
  ];
}

export const formatTable = (results) => formatColumns(COLUMNS, results.map(cells));

/** Columns as wide as they need to be; names and the last to the left, numbers to the right. */
export function formatColumns(columns, texts) {
  const rows = [columns, ...texts];
  const widths = columns.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 || column === row.length - 1
          ? cell.padEnd(widths[column])
          : cell.padStart(widths[column]),
      )
      .join('  ')
      .trimEnd(),
  );
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return [lines[0], rule, ...lines.slice(1)].join('\n');
}

/** What was measured, where, and beside how much other work; `run`: with which memory. */
export function formatHost(host, run) {
  const { cpu, cpus, kernel, kvm, node } = host;
  const { memory_MiB, load_before, load_after, rounds } = run;
  return [
    `${cpu}, ${cpus} CPUs; Linux ${kernel}; KVM: ${kvm}; Node ${node}`,
    `guest memory ${formatSize(memory_MiB)}; page cache warm; rounds: ${rounds}`,
    `load average ${load_before.toFixed(2)} before, ${load_after.toFixed(2)} after`,
  ].join('\n');
}
