import type { Command } from 'commander';
import { type Check, isUsable, judge } from '../doctor/checks.js';
import { gatherFacts } from '../doctor/facts.js';
import { kvmFlavour } from '../doctor/flavour.js';
import type { Exit } from '../exit.js';
import { EXIT } from '../exit-codes.js';
import { withJson } from '../options.js';
import { print, printJson, table } from '../output.js';

export function addDoctor(program: Command, exit: Exit): void {
  const command = program
    .command('doctor')
    .summary('say what this host has, what is lost, and how to get it')
    .description(
      'Says what of KVM and the system is there, what is lost where something is not, and how to\n' +
        'get it. The exit code is 1 when machines cannot run.',
    )
    .option('--all', 'also print capabilities that are there');
  withJson(command).action(({ json, all = false }: { json?: boolean; all?: boolean }) => {
    const facts = gatherFacts();
    const checks = judge(facts);
    const usable = isUsable(checks);
    if (json) {
      const { kind, nested } = kvmFlavour(facts);
      const capabilities = facts.host.ok ? facts.host.value.capabilities : {};
      printJson({ usable, kvm: { kind, nested }, checks, capabilities });
    } else {
      print(renderChecks(checks, all));
    }
    if (!usable) exit.code = EXIT.failure;
  });
}

const MARKS = { ok: 'ok', warn: 'WARN', fail: 'FAIL', info: '-' } as const;

/** One line for each check, its remedy below; capabilities that are there in one line, unless `all`. */
export function renderChecks(checks: readonly Check[], all: boolean): string {
  const isPlain = ({ name, status }: Check): boolean =>
    name.startsWith('KVM_CAP_') && status === 'ok';
  const shown = checks.filter((check) => all || !isPlain(check));
  const rows = shown.flatMap(({ name, status, text, fix }) => [
    [MARKS[status], name, text.replace(/\s*\n\s*/g, ' ')],
    ...(fix === undefined ? [] : [['', '', `-> ${fix}`]]),
  ]);
  const plain = checks.filter(isPlain).length;
  const hidden =
    all || plain === 0 ? '' : `${plain} more KVM capabilities are there (--all prints them).\n`;
  const verdict = isUsable(checks)
    ? 'Machines can run here. Try `kvmsnap demo`.\n'
    : 'Machines cannot run here: see FAIL above.\n';
  return `${table(rows)}${hidden}${verdict}`;
}
