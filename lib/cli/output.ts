/**
 * What commands print. All of it goes through here but the guest's own output, so that no text of a guest, a
 * store or another process drives the terminal.
 */

/** Controls (C0, DEL, C1), marks that turn text around or hide it, separators, halves of surrogates. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** Text on one line, each character of which can be seen. */
export const printable = (text: string): string => text.replace(UNPRINTABLE, '?');

/** The same for text of several lines, which must be ours to begin with. */
const printableLines = (text: string): string => text.split('\n').map(printable).join('\n');

/** Bytes waiting in a pipe or terminal are lost if the process exits before they are taken. */
export function flush(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.destroyed || stream.writableLength === 0) resolve();
    else stream.write('', () => resolve());
  });
}

/** Lines of ours; text from elsewhere in them must be {@link printable}, so that it makes no lines. */
export function print(text: string): void {
  printPart(text.endsWith('\n') ? text : `${text}\n`);
}

/** The same without an end of line: more follows. */
export function printPart(text: string): void {
  process.stdout.write(printableLines(text));
}

/** A remark for people, apart from the output of the command. */
export function note(text: string): void {
  process.stderr.write(`kvmsnap: ${printable(text)}\n`);
}

/** A line, or lines, of an error. */
export function complain(text: string): void {
  process.stderr.write(`${printableLines(text)}\n`);
}

/** Ends the line that a guest has begun. */
export function endLine(): void {
  process.stderr.write('\n');
}

export function printJson(value: unknown): void {
  print(jsonText(value));
}

/** JSON that can be printed: what cannot is escaped. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value, jsonValue, 2)
    .split('\n')
    .map((line) => line.replace(UNPRINTABLE, escapeUnits))
    .join('\n');
}

const escapeUnits = (text: string): string =>
  text
    .split('')
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    .join('');

/** JSON has no 64-bit integers and no bytes: both become hexadecimal text. */
export function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return hex(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  return value;
}

export const hex = (value: bigint | number, digits = 0): string =>
  value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16).padStart(digits, '0')}`;

/** Columns as wide as they need to be; the last is not padded. Cells are made {@link printable}. */
export function table(cells: readonly (readonly string[])[], indent = ''): string {
  const rows = cells.map((row) => row.map(printable));
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  return rows
    .map((row) => indent + row.map((cell, i) => cell.padEnd(widths[i] as number)).join('  '))
    .map((line) => `${line.trimEnd()}\n`)
    .join('');
}

export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

export function formatMs(ms: number): string {
  if (ms < 1) return `${(ms * 1000).toFixed(0)} us`;
  if (ms < 1000) return `${ms.toFixed(ms < 10 ? 2 : 1)} ms`;
  return `${(ms / 1000).toFixed(2)} s`;
}

export function formatAge(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** `sha256:` and 12 digits, as container tools shorten them. */
export const shortDigest = (digest: string): string => digest.slice(0, 'sha256:'.length + 12);
