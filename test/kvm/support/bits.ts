/** Bitmaps of pages: bit n % 8 of byte n / 8. */
export function pagesOf(bitmap: Uint8Array): number[] {
  const pages: number[] = [];
  bitmap.forEach((byte, at) => {
    for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) pages.push(at * 8 + bit);
  });
  return pages;
}

export function bitmapOf(pages: readonly number[], length: number): Uint8Array {
  const bitmap = new Uint8Array(Math.ceil(length / 64) * 8);
  for (const page of pages) bitmap[page >> 3]! |= 1 << (page & 7);
  return bitmap;
}

export const range = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);
