import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { requireArgument } from '../../errors.js';
import { guestNames } from '../../native/guests.js';
import { MiB } from '../../units.js';
import type { Exit } from '../exit.js';
import { hostMachine } from '../hosting.js';
import {
  collectDevices,
  DEVICE_NAMES,
  type DeviceToggles,
  type HostingOptions,
  withDirtyRing,
  withHosting,
} from '../options.js';
import { guestSpec, type MachineSpecText } from '../spec.js';
import { parseAddress, parseInteger, parsePort, parseRing, parseSize } from '../values.js';

interface RunOptions extends HostingOptions {
  bare?: string;
  mode?: 'real' | 'protected' | 'long';
  ring?: 0 | 3;
  entry?: bigint;
  loadAddress?: bigint;
  guest?: string;
  kernel?: string;
  initrd?: string;
  append?: string;
  memory: number;
  cpus: number;
  irqchip: boolean;
  device?: DeviceToggles;
  exitPort?: number;
  dirtyRing?: number;
}

export function addRun(program: Command, exit: Exit): void {
  const command = program
    .command('run')
    .summary('run a bare guest or Linux, with its console on the terminal')
    .description(
      "Runs a guest with its serial console on this terminal. The guest's exit code becomes the\n" +
        'exit code. With --name the machine runs in the background, and the terminal can leave it.',
    )
    .option('--bare <file>', 'ELF or flat binary to run without an operating system')
    .addOption(
      new Option('--mode <mode>', 'processor mode of --bare (default: long)').choices([
        'real',
        'protected',
        'long',
      ]),
    )
    .option(
      '--ring <ring>',
      'privilege of --bare or --guest: 0 or 3 (default: 0; of --guest, its own)',
      parseRing,
    )
    .option('--entry <address>', 'first instruction of --bare', parseAddress)
    .option('--load-address <address>', 'where a flat binary goes (default: 0x1000)', parseAddress)
    .option('--guest <name>', `demo guest: ${guestNames().join(', ')}`)
    .option('--kernel <file>', 'Linux: bzImage or vmlinux')
    .option('--initrd <path>', 'cpio archive, or a directory to pack as one')
    .option('--append <text>', 'kernel command line (default: console=ttyS0 panic=-1 reboot=k)')
    .option('--memory <size>', 'guest RAM, as 256M or 1.5G (default: 128M)', parseSize, MiB(128))
    .option('--cpus <n>', 'number of vCPUs (default: 1)', parseInteger(1, 255), 1)
    .option('--no-irqchip', 'no interrupt controllers and timer: quicker, for bare guests')
    .option(
      '--device <name=on|off>',
      `repeat for several: ${DEVICE_NAMES.join(', ')}`,
      collectDevices,
    )
    .option('--exit-port <port>', 'port for the exit code, 0: none (default: 0xf4)', parsePort);
  withHosting(withDirtyRing(command)).action(async (options: RunOptions) => {
    exit.code = await hostMachine(specOf(options), options);
  });
}

function specOf(options: RunOptions): MachineSpecText {
  const { bare, guest, kernel } = options;
  const chosen = [bare, guest, kernel].filter((value) => value !== undefined).length;
  requireArgument(chosen === 1, 'give one of --guest NAME, --bare FILE and --kernel FILE');
  const bareOnly = ['mode', 'entry', 'loadAddress'] as const;
  for (const key of bareOnly) {
    requireArgument(options[key] === undefined || bare, `--${dashed(key)} goes with --bare`);
  }
  requireArgument(options.ring === undefined || !kernel, '--ring goes with --bare or --guest');
  for (const key of ['initrd', 'append'] as const) {
    requireArgument(options[key] === undefined || kernel, `--${key} goes with --kernel`);
  }
  const { memory, cpus: vcpus, irqchip, exitPort, dirtyRing } = options;
  const devices = { ...options.device, ...(exitPort === undefined ? {} : { exitPort }) };
  const ring = dirtyRing === undefined ? {} : { dirtyRing };
  const machine = { memory, vcpus, irqchip, devices, ...ring };
  if (guest !== undefined) {
    return { kind: 'bare', ...machine, ...guestSpec(guest, options.ring) };
  }
  if (kernel !== undefined) {
    return {
      kind: 'linux',
      ...machine,
      kernel: resolve(kernel),
      ...(options.initrd === undefined ? {} : { initrd: resolve(options.initrd) }),
      ...(options.append === undefined ? {} : { cmdline: options.append }),
    };
  }
  const { entry, loadAddress } = options;
  return {
    kind: 'bare',
    ...machine,
    image: resolve(bare as string),
    mode: options.mode ?? 'long',
    ring: options.ring ?? 0,
    ...(entry === undefined ? {} : { entry: String(entry) }),
    ...(loadAddress === undefined ? {} : { loadAddress: String(loadAddress) }),
  };
}

const dashed = (key: string): string => key.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
