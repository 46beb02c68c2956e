import { readFileSync } from 'node:fs';

let cached: { name: string; version: string } | undefined;

/** Name and version of this package, as its package.json has them. */
export function product(): { name: string; version: string } {
  if (!cached) {
    const url = new URL('../../package.json', import.meta.url);
    const { name, version } = JSON.parse(readFileSync(url, 'utf8')) as Record<string, string>;
    cached = { name: name ?? 'kvmsnap', version: version ?? '0.0.0' };
  }
  return cached;
}
