/** Options that several commands share. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { exposureOf } from '../snapshot/exposure.js';
import { defaultLimits, type StoreLimits } from '../snapshot/limits.js';
import { note } from './output.js';
import { parseDetachKey, parseInteger, parseName } from './values.js';

export const withJson = (command: Command): Command =>
  command.option('--json', 'print JSON for programs');

/** A store, and what reading it may cost. */
export interface StoreOptions {
  store: string;
  limit?: Partial<StoreLimits>;
}

/** Warns of a store that others can change, whatever is done with it. */
export const withStore = (command: Command): Command =>
  command
    .requiredOption('--store <dir>', 'directory of the snapshot store')
    .hook('preAction', (_, action) => {
      for (const problem of exposureOf(action.opts().store)) {
        note(`warning: ${problem}: they can put other snapshots in place of those in the store`);
      }
    });

/** Of commands that read snapshots themselves. */
export const withReadStore = (command: Command): Command =>
  withStore(command).option(
    '--limit <name=number>',
    'let the command cost more (or less) than by default; errors name the limit. Repeat for several',
    collectLimits,
  );

export const limitsOf = ({ limit }: StoreOptions): { limits?: Partial<StoreLimits> } =>
  limit === undefined ? {} : { limits: limit };

/** `readBytes=1073741824`, gathered over repetitions. */
export function collectLimits(
  text: string,
  before: Partial<StoreLimits> = {},
): Partial<StoreLimits> {
  const [, name, number] = /^([A-Za-z]+)=(\d{1,16})$/.exec(text) ?? [];
  const names = Object.keys(defaultLimits());
  if (name === undefined || !names.includes(name)) {
    throw new InvalidArgumentError(`Give NAME=NUMBER; names: ${names.join(', ')}.`);
  }
  return { ...before, [name]: Number(number) };
}

export const withDetachKey = (command: Command): Command =>
  command.addOption(
    new Option('--detach-key <key>', 'key that leaves the console; none: no such key')
      .default(parseDetachKey('ctrl-]'), 'ctrl-]')
      .argParser(parseDetachKey),
  );

export const withDirtyRing = (command: Command): Command =>
  command.option(
    '--dirty-ring <entries>',
    'ring for `kvmsnap dirty --tracker ring`, as 4096, for each vCPU',
    parseInteger(1, 1_048_576),
  );

/** Where a new machine runs, and who watches it. */
export interface HostingOptions {
  name?: string;
  detach?: boolean;
  paused?: boolean;
  debugOutput?: boolean;
  detachKey: ReturnType<typeof parseDetachKey>;
  json?: boolean;
}

export const withHosting = (command: Command): Command =>
  withJson(
    withDetachKey(
      command
        .option('--name <name>', 'run in the background under this name', parseName)
        .option('-d, --detach', 'with --name: do not attach the terminal')
        .option('--paused', 'with --detach: do not start yet; `kvmsnap resume` does')
        .option('--debug-output', 'copy what the guest writes to port 0xE9 to stderr or the log'),
    ),
  );

const DEVICE_KEYS = {
  serial: 'serial',
  i8042: 'i8042',
  'debug-port': 'debugPort',
  cmos: 'cmos',
  'acpi-power': 'acpiPower',
} as const;
export type DeviceToggles = Partial<
  Record<(typeof DEVICE_KEYS)[keyof typeof DEVICE_KEYS], boolean>
>;
export const DEVICE_NAMES = Object.keys(DEVICE_KEYS);

/** `serial=off`, gathered over repetitions. */
export function collectDevices(text: string, before: DeviceToggles = {}): DeviceToggles {
  const [, name, state] = /^([a-z0-9-]+)=(on|off)$/.exec(text) ?? [];
  if (name === undefined || !Object.hasOwn(DEVICE_KEYS, name)) {
    throw new InvalidArgumentError(`Give NAME=on or NAME=off; names: ${DEVICE_NAMES.join(', ')}.`);
  }
  return { ...before, [DEVICE_KEYS[name as keyof typeof DEVICE_KEYS]]: state === 'on' };
}
