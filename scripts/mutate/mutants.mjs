// Small faults that are put into C++ source, one at a time: a condition turned round, a call left out, two
// calls in the other order.

import { createHash } from 'node:crypto';

/** The source with comments, and what is in string and character literals, blanked: same length, same lines. */
export function codeOnly(source) {
  const pattern = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)'/g;
  return source.replace(pattern, (text) => text.replace(/[^\n"']/g, ' '));
}

const closing = (code, open) => {
  let depth = 0;
  for (let at = open; at < code.length; at++) {
    if (code[at] === '(') depth++;
    else if (code[at] === ')' && --depth === 0) return at;
  }
  return -1;
};

/** Whole `if (...)` and `while (...)`, whose condition is negated. */
function* negated(code) {
  for (const match of code.matchAll(/\b(?:if|while) \(/g)) {
    const open = match.index + match[0].length - 1;
    const end = closing(code, open);
    const inside = code.slice(open + 1, end);
    // `if (auto x = ...)` and `if (init; condition)` have no condition that could be put into brackets.
    if (end < 0 || inside.includes(';') || /[^=!<>]=[^=]/.test(inside)) continue;
    // To turn its only operator round comes to the same.
    if (/^[^=!<>&|]* [=!]= [^=!<>&|]*$/.test(inside)) continue;
    yield { at: open + 1, end, make: (text) => `!(${text})` };
  }
}

const OTHER = {
  '==': '!=',
  '!=': '==',
  '<=': '<',
  '>=': '>',
  '<': '<=',
  '>': '>=',
  '&&': '||',
  '||': '&&',
  true: 'false',
  false: 'true',
};

/** Comparisons and connectives, by the one next to them; `return true` and `return false`. */
function* turned(code) {
  for (const match of code.matchAll(
    /(?<= )(?:[=!<>]=|[<>]|&&|\|\|)(?= )|(?<=return )(?:true|false)(?=;)/g,
  )) {
    const end = match.index + match[0].length;
    yield { at: match.index, end, make: (text) => OTHER[text] };
  }
}

// A statement that is nothing but a call: no declaration (which has a space before the bracket), no macro.
const CALL =
  /(?<=[;{}]\s*\n)( +)((?:\*?[a-z_][\w:.]*(?:->|\.|\(\)|\[[^\]\n]*\])*)+)\((?![^)]*\{\n)/g;
const NO_CALL =
  /^(?:if|while|for|switch|return|throw|catch|sizeof|static_assert|delete|case|default)$/;

/** Statements that only call something: from the first character to the semicolon. */
function calls(code) {
  const found = [];
  for (const match of code.matchAll(CALL)) {
    if (NO_CALL.test(match[2])) continue;
    const at = match.index + match[1].length;
    const end = closing(code, at + match[2].length);
    // What is done with the result is another matter: `f(x) = y;`, `f(x).g();`.
    if (end < 0 || code[end + 1] !== ';') continue;
    found.push({ at, end: end + 2, indent: match[1].length });
  }
  return found;
}

function* dropped(code) {
  for (const { at, end } of calls(code)) yield { at, end, make: () => ';' };
}

function* swapped(code) {
  const all = calls(code);
  for (const [index, first] of all.entries()) {
    const second = all[index + 1];
    if (!second || second.indent !== first.indent) continue;
    if (code.slice(first.end, second.at).trim() !== '') continue;
    const cut = first.end - first.at;
    const from = second.at - first.at;
    yield {
      at: first.at,
      end: second.end,
      make: (text) => text.slice(from) + text.slice(cut, from) + text.slice(0, cut),
    };
  }
}

const KINDS = {
  'negate a condition': negated,
  'turn an operator': turned,
  'drop a call': dropped,
  'swap calls': swapped,
};

/**
 * All mutants of a file. The key of one is its own as long as its line and those like it stay, wherever they move.
 */
export function mutantsOf(file, source) {
  const code = codeOnly(source);
  const seen = new Map();
  return Object.entries(KINDS).flatMap(([kind, find]) =>
    [...find(code)].map(({ at, end, make }) => {
      const before = source.slice(at, end);
      const mutated = `${source.slice(0, at)}${make(before)}${source.slice(end)}`;
      const lineStart = source.lastIndexOf('\n', at) + 1;
      const column = at - lineStart;
      const text = source.slice(lineStart, source.indexOf('\n', end)).trim();
      const like = `${file}\n${kind}\n${column}\n${text}`;
      const count = (seen.get(like) ?? 0) + 1;
      seen.set(like, count);
      const key = createHash('sha256').update(`${like}\n${count}`).digest('hex').slice(0, 12);
      const line = source.slice(0, at).split('\n').length;
      return { key, file, line, kind, before, after: make(before), mutated };
    }),
  );
}

/** The same order for the same seed. */
export function shuffled(items, seed) {
  const weight = ({ key }) => createHash('sha256').update(`${seed} ${key}`).digest('hex');
  return [...items]
    .map((item) => [weight(item), item])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, item]) => item);
}
