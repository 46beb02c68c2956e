// The figures of many machines as text.
import { formatColumns, formatTime } from '../table.mjs';

/** KiB of PSS that are good enough for a fork that has not run. */
export const PSS_AIM_KIB = 150;

const FANOUT = ['', 'value', ''];

function fanoutRows(result) {
  const { idlePssKiB, firstExit, left } = result;
  const verdict = idlePssKiB <= PSS_AIM_KIB ? 'within' : 'beyond';
  return [
    ['forks alive at once', String(result.count), ''],
    ['all made in', formatTime(result.forkUs), `${result.forksPerSecond.toFixed(0)} forks/s`],
    ['PSS of each, idle', `${idlePssKiB.toFixed(1)} KiB`, `${verdict} ${PSS_AIM_KIB} KiB`],
    ['PSS of each, after its first exit', `${result.ranPssKiB.toFixed(1)} KiB`, ''],
    ['descriptors of each', result.fdsEach.toFixed(1), ''],
    ['mappings of each', result.mapsEach.toFixed(1), ''],
    ['first exit, p50', formatTime(firstExit.p50), `p99 ${formatTime(firstExit.p99)}`],
    ['all closed in', formatTime(result.closeUs), ''],
    ['longest turn of the event loop then', formatTime(result.closeLongestTurnUs), ''],
    [
      'left behind',
      `${left.fds} descriptors, ${left.threads} threads`,
      `${left.maps} mappings, ${left.pssKiB} KiB`,
    ],
  ];
}

export const formatFanout = (result) =>
  `fan-out, ${result.kind} machine\n\n${formatColumns(FANOUT, fanoutRows(result))}`;

const CHURN = ['machine', 'made', 'at a time', 'machines/s', 'p50', 'p99', 'N'];

export const formatChurn = (results) =>
  `churn: made, run to its first exit, closed\n\n${formatColumns(
    CHURN,
    results.map(({ kind, how, parallel, perSecond, p50, p99, n }) => [
      kind,
      how,
      String(parallel),
      perSecond.toFixed(0),
      formatTime(p50),
      formatTime(p99),
      String(n),
    ]),
  )}`;

/** Descriptors and threads are exact; mappings are also the allocator's and V8's. */
export const leftBehind = ({ left }) => left.fds > 0 || left.threads > 0;
