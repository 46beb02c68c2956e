/** This library and its samples as JavaScript, for tests that need other processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { scratch } from './scratch.js';

const ROOT = join(import.meta.dirname, '../../..');

/** Transpiles to a fresh directory and gives its path. */
export function compile(): string {
  const out = scratch();
  const sources = [
    ...['arguments', 'errors', 'progress', 'units'].map((name) => `lib/${name}.ts`),
    ...typeScriptIn('lib/snapshot'),
    ...['samples', 'commit-child'].map((name) => `test/unit/snapshot/${name}.ts`),
  ];
  for (const source of sources) {
    const { outputText } = ts.transpileModule(readFileSync(join(ROOT, source), 'utf8'), {
      compilerOptions: {
        module: ts.ModuleKind.ESNext,
        target: ts.ScriptTarget.ES2023,
        verbatimModuleSyntax: true,
      },
    });
    const target = join(out, source.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, outputText);
  }
  copyFileSync(join(ROOT, 'package.json'), join(out, 'package.json'));
  symlinkSync(join(ROOT, 'node_modules'), join(out, 'node_modules'));
  return out;
}

const typeScriptIn = (folder: string): string[] =>
  readdirSync(join(ROOT, folder))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => `${folder}/${name}`);

export interface Committer {
  process: ChildProcess;
  /** How many commits it has reported. */
  committed(): number;
  /** Resolves when it has opened the store and reported so many commits. */
  reached(commits: number): Promise<void>;
  exited: Promise<number | null>;
}

/** Starts a process that commits `count` snapshots tagged PREFIX0, PREFIX1, … */
export function startCommitter(
  compiled: string,
  store: string,
  prefix: string,
  count: number,
  durable = false,
): Committer {
  const script = join(compiled, 'test/unit/snapshot/commit-child.js');
  const child = spawn(process.execPath, [script, store, prefix, `${count}`, `${durable}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data) => {
    output += data;
  });
  // One line says that the store is open; each of the others is a commit.
  const committed = (): number => output.split('\n').length - 2;
  return {
    process: child,
    committed,
    async reached(commits) {
      while (committed() < commits) await once(child.stdout, 'data');
    },
    exited: once(child, 'close').then(([code]) => code as number | null),
  };
}
