/** The command line as users start it, in processes of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const MAIN = join(import.meta.dirname, '../../../dist/cli/main.js');

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** A runtime directory and a place for stores, apart from the user's own. */
export class CommandLine {
  readonly directory = mkdtempSync(join(tmpdir(), 'kvmsnap-cli-'));
  readonly #started: ChildProcess[] = [];

  constructor() {
    if (!existsSync(MAIN)) throw new Error(`${MAIN} is missing: npm run build:ts`);
  }

  get store(): string {
    return join(this.directory, 'store');
  }

  start(args: readonly string[], env: Record<string, string> = {}): ChildProcess {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: { ...process.env, XDG_RUNTIME_DIR: this.directory, ...env },
      cwd: this.directory,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#started.push(child);
    return child;
  }

  /** Runs to its end. */
  async run(...args: string[]): Promise<Finished> {
    return finish(this.start(args));
  }

  /** Runs to its end, which must be good, and parses what it printed. */
  async json(...args: string[]) {
    const { code, stdout, stderr } = await this.run(...args, '--json');
    if (code !== 0) throw new Error(`kvmsnap ${args.join(' ')}: exit code ${code}: ${stderr}`);
    return JSON.parse(stdout);
  }

  /** Ends all that is still there. */
  async clean(): Promise<void> {
    for (const child of this.#started) child.kill('SIGKILL');
    for (const { name } of await this.json('ps')) await this.run('stop', '--kill', name);
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export async function finish(child: ChildProcess): Promise<Finished> {
  let stdout = '';
  let stderr = '';
  child.stdout?.on('data', (data) => {
    stdout += data;
  });
  child.stderr?.on('data', (data) => {
    stderr += data;
  });
  child.stdin?.end();
  const [code] = await once(child, 'close');
  return { code, stdout, stderr };
}

/**
 * Resolves when the child has printed what `pattern` matches. The pipe stays open: a command whose reader
 * leaves ends by that, with its own exit code, whatever else it is told next.
 */
export function printed(child: ChildProcess, pattern: RegExp): Promise<string> {
  let text = '';
  return new Promise((resolve, reject) => {
    const look = (data: Buffer): void => {
      text += data;
      if (!pattern.test(text)) return;
      child.stdout?.off('data', look).off('end', ended);
      resolve(text);
    };
    const ended = (): void =>
      reject(new Error(`the command ended without printing ${pattern}: ${text}`));
    child.stdout?.on('data', look).on('end', ended);
  });
}
