/** The library as JavaScript, for tests that need processes and workers of their own. */
import { spawn } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import ts from 'typescript';
import { HANG_MS } from '../support/host.js';

const ROOT = join(import.meta.dirname, '../../..');
const CHILDREN = 'test/kvm/robustness/children';

/** Transpiles `lib` into a fresh directory, beside the children and what they need; gives its path. */
export function compile(): string {
  const out = mkdtempSync(join(tmpdir(), 'kvmsnap-robustness-'));
  for (const name of readdirSync(join(ROOT, 'lib'), { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts')) continue;
    const { outputText } = ts.transpileModule(readFileSync(join(ROOT, 'lib', name), 'utf8'), {
      compilerOptions: {
        module: ts.ModuleKind.ESNext,
        target: ts.ScriptTarget.ES2022,
        verbatimModuleSyntax: true,
      },
    });
    const target = join(out, 'lib', name.replace(/\.ts$/, '.js'));
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, outputText);
  }
  cpSync(join(ROOT, CHILDREN), join(out, CHILDREN), { recursive: true });
  for (const name of ['package.json', 'node_modules', 'build']) {
    symlinkSync(join(ROOT, name), join(out, name));
  }
  return out;
}

export const removeCompiled = (path: string): void => rmSync(path, { recursive: true });

/** AddressSanitizer keeps what is freed, and maps as it likes: memory says nothing under it. */
export const MEMORY_TELLS = !/libasan/.test(process.env.LD_PRELOAD ?? '');

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs one of `children/` with `gc` exposed until it ends; one that hangs is killed: signal SIGKILL. */
export function runChild(
  compiled: string,
  name: string,
  args: readonly (string | number)[] = [],
  timeoutMs = HANG_MS,
): Promise<Ended> {
  const script = join(compiled, CHILDREN, `${name}.mjs`);
  // V8 doubles its young generation when it sees fit: 16 MiB that no machine has leaked.
  const options = ['--expose-gc', '--max-semi-space-size=2'];
  const child = spawn(process.execPath, [...options, script, ...args.map(String)], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  const limit = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  return new Promise((resolve) => {
    child.on('close', (code, signal) => {
      clearTimeout(limit);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** The JSON on the last line of a child that has to end well. */
export function answerOf<T>({ code, signal, stdout, stderr }: Ended): T {
  if (code !== 0 || signal !== null) {
    throw new Error(`the child ended with ${signal ?? code}:\n${stdout}\n${stderr}`);
  }
  return JSON.parse(stdout.trimEnd().split('\n').at(-1) as string) as T;
}
