/** Pieces of readable state: grids of fields, tables of like structs. */
import { printable, table } from '../output.js';
import type { Plain, PlainObject } from './decode.js';

const LINE = 100;

export const isObject = (value: Plain | undefined): value is PlainObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `a.b[0]` -> value, for every leaf. */
export function leaves(value: Plain, path = ''): [string, string][] {
  if (Array.isArray(value)) {
    if (value.length === 0) return [[path, 'none']];
    // Vectors, of which there are up to 256.
    if (value.every((item) => typeof item === 'number')) return [[path, value.join(' ')]];
    return value.flatMap((item, i) => leaves(item, `${path}[${i}]`));
  }
  if (isObject(value)) {
    return Object.entries(value).flatMap(([key, item]) =>
      leaves(item, path === '' ? key : `${path}.${key}`),
    );
  }
  return [[path, String(value)]];
}

export const isZero = (text: string): boolean => /^(0|0x0+|none)$/.test(text) || /^0+$/.test(text);

/** Fields in as many columns as a line has room for; long ones have a line of their own. */
export function grid(fields: readonly (readonly [string, string])[], indent = '  '): string {
  const isLong = ([name, value]: readonly [string, string]): boolean =>
    name.length + value.length > LINE / 2;
  const cells = fields.filter((field) => !isLong(field));
  const long = fields
    .filter(isLong)
    .map(([name, value]) => `${indent}${printable(name)}  ${printable(value)}\n`);
  if (cells.length === 0) return long.join('');
  const width = Math.max(...cells.map(([name, value]) => name.length + value.length)) + 4;
  const columns = Math.max(1, Math.floor((LINE - indent.length) / width));
  const rows: string[][] = [];
  const height = Math.ceil(cells.length / columns);
  for (let row = 0; row < height; row++) {
    rows.push(cells.filter((_, i) => i % height === row).flat());
  }
  return table(rows, indent) + long.join('');
}

/** One row for each struct of a list. */
export function structTable(rows: readonly (readonly [string, PlainObject])[]): string {
  const [first] = rows;
  if (!first) return '';
  const keys = Object.keys(first[1]);
  return table(
    [['', ...keys], ...rows.map(([name, row]) => [name, ...keys.map((key) => String(row[key]))])],
    '  ',
  );
}

export const heading = (text: string): string => `\n${printable(text)}\n`;
