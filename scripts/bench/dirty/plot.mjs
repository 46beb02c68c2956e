// A chart of lines as SVG: both axes logarithmic, one line for each tracker.
const WIDTH = 640;
const HEIGHT = 400;
const MARGIN = { left: 70, right: 130, top: 40, bottom: 50 };
const COLOURS = ['#4477aa', '#66ccee', '#228833', '#ccbb44', '#ee6677', '#aa3377', '#777777'];

const xmlText = (text) =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

function decades(values) {
  const logs = values.map(Math.log10);
  return [
    Math.floor(Math.min(...logs)),
    Math.max(Math.ceil(Math.max(...logs)), Math.floor(Math.min(...logs)) + 1),
  ];
}

const power = (exponent) =>
  exponent >= 0 && exponent < 6 ? String(10 ** exponent) : `1e${exponent}`;

/** `series`: `{ name, points: [x, y][] }[]`. Points that are not positive have no place and are left out. */
export function chart({ title, x, y, series }) {
  const drawn = series
    .map(({ name, points }) => ({ name, points: points.filter(([a, b]) => a > 0 && b > 0) }))
    .filter(({ points }) => points.length > 0);
  if (drawn.length === 0) throw new RangeError('there is nothing to draw');
  const all = drawn.flatMap(({ points }) => points);
  const [x0, x1] = decades(all.map(([a]) => a));
  const [y0, y1] = decades(all.map(([, b]) => b));
  const inner = {
    width: WIDTH - MARGIN.left - MARGIN.right,
    height: HEIGHT - MARGIN.top - MARGIN.bottom,
  };
  const px = (value) => MARGIN.left + ((Math.log10(value) - x0) / (x1 - x0)) * inner.width;
  const py = (value) => MARGIN.top + (1 - (Math.log10(value) - y0) / (y1 - y0)) * inner.height;
  const at = (value) => value.toFixed(1);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="white"/>`,
    `<text x="${MARGIN.left}" y="22" font-size="14">${xmlText(title)}</text>`,
  ];
  for (let exponent = x0; exponent <= x1; exponent++) {
    const place = at(px(10 ** exponent));
    parts.push(
      `<line x1="${place}" y1="${MARGIN.top}" x2="${place}" y2="${HEIGHT - MARGIN.bottom}" stroke="#ddd"/>`,
      `<text x="${place}" y="${HEIGHT - MARGIN.bottom + 16}" text-anchor="middle">${power(exponent)}</text>`,
    );
  }
  for (let exponent = y0; exponent <= y1; exponent++) {
    const place = at(py(10 ** exponent));
    parts.push(
      `<line x1="${MARGIN.left}" y1="${place}" x2="${WIDTH - MARGIN.right}" y2="${place}" stroke="#ddd"/>`,
      `<text x="${MARGIN.left - 6}" y="${place}" text-anchor="end" dominant-baseline="middle">${power(exponent)}</text>`,
    );
  }
  parts.push(
    `<text x="${MARGIN.left + inner.width / 2}" y="${HEIGHT - 12}" text-anchor="middle">${xmlText(x)}</text>`,
    `<text transform="translate(16 ${MARGIN.top + inner.height / 2}) rotate(-90)" text-anchor="middle">${xmlText(y)}</text>`,
  );
  drawn.forEach(({ name, points }, i) => {
    const colour = COLOURS[i % COLOURS.length];
    const line = points.map(([a, b]) => `${at(px(a))},${at(py(b))}`).join(' ');
    const key = MARGIN.top + 10 + i * 18;
    parts.push(
      `<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="2"/>`,
      ...points.map(
        ([a, b]) => `<circle cx="${at(px(a))}" cy="${at(py(b))}" r="3" fill="${colour}"/>`,
      ),
      `<line x1="${WIDTH - MARGIN.right + 10}" y1="${key}" x2="${WIDTH - MARGIN.right + 28}" y2="${key}" stroke="${colour}" stroke-width="2"/>`,
      `<text x="${WIDTH - MARGIN.right + 33}" y="${key}" dominant-baseline="middle">${xmlText(name)}</text>`,
    );
  });
  parts.push('</svg>', '');
  return parts.join('\n');
}
