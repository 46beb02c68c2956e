/** Dirty epochs as a table, as JSON and as a chart that grows line by line. */
import type { EpochSummary } from './control/protocol.js';

/** Text for each epoch as it comes, and what goes before and after all of them. */
export interface EpochFormat {
  begin(): string;
  epoch(epoch: EpochSummary): string;
  end(): string;
}

export function csvFormat(): EpochFormat {
  return {
    begin: () => 'at_ms,pages,bytes,harvest_us,lost_us\n',
    epoch: ({ at, pages, harvestUs, lostUs }) =>
      `${[at, pages, pages * 4096, harvestUs, lostUs].map((value) => round(value)).join(',')}\n`,
    end: () => '',
  };
}

/** One array, whose elements come as they are measured. */
export function jsonFormat(): EpochFormat {
  let separator = '\n';
  return {
    begin: () => '[',
    epoch: (epoch) => {
      const text = `${separator}${JSON.stringify(epoch)}`;
      separator = ',\n';
      return text;
    },
    end: () => '\n]\n',
  };
}

const BAR_CELLS = 24;
const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const SHADES = [' ', '░', '▒', '▓', '█'];

/** A bar of the number of pages, on a logarithmic scale, and a strip of where in memory they are. */
export function plotFormat(): EpochFormat {
  return {
    begin: () =>
      `${'at'.padStart(9)} ${'pages'.padStart(9)}  ${'(logarithmic)'.padEnd(BAR_CELLS)}  where in memory\n`,
    epoch: ({ at, pages, slots, heat }) => {
      const size = slots.reduce((sum, slot) => sum + slot.size, 0);
      const time = `${(at / 1000).toFixed(2)} s`.padStart(9);
      return `${time} ${String(pages).padStart(9)}  ${bar(pages, size)}  │${heat.map(shade).join('')}│\n`;
    },
    end: () => '',
  };
}

function bar(pages: number, size: number): string {
  const share = size > 0 ? Math.log1p(pages) / Math.log1p(size) : 0;
  const eighths = Math.round(Math.min(1, share) * BAR_CELLS * 8);
  const text = '█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] as string);
  return text.padEnd(BAR_CELLS);
}

/** Any page at all shows. */
const shade = (share: number): string => SHADES[Math.ceil(share * (SHADES.length - 1))] as string;

const round = (value: number): number => Math.round(value * 1000) / 1000;
