// What came of the mutants, by file.

const last = (results) => [...new Map(results.map((result) => [result.key, result])).values()];

/** Markdown: a table of files, and the mutants that survived. A result of later counts. */
export function reportOf(results, totals) {
  const byFile = new Map();
  for (const result of last(results))
    byFile.set(result.file, [...(byFile.get(result.file) ?? []), result]);
  const count = (list, outcome) => list.filter((result) => result.outcome === outcome).length;
  const rows = [...byFile]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([file, list]) => {
      const tried = list.length - count(list, 'does not compile');
      const cells = [
        totals.get(file) ?? '?',
        tried,
        count(list, 'killed'),
        count(list, 'survived'),
      ];
      return `| \`${file}\` | ${cells.join(' | ')} |`;
    });
  const survivors = last(results)
    .filter(({ outcome }) => outcome === 'survived')
    .sort((a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1))
    .map(({ file, line, kind, before, after }) => {
      const flat = (text) => text.replace(/\s+/g, ' ');
      return `- ${file}:${line} ${kind}: \`${flat(before)}\` -> \`${flat(after)}\``;
    });
  return [
    '| file | mutants | tried | killed | survived |',
    '|---|---|---|---|---|',
    ...rows,
    '',
    ...survivors,
    '',
  ].join('\n');
}
