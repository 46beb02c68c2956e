/** Debian's own kernel, with an initrd that is a shell at the serial port. */
import { type StopInfo, Vm, type VmOptions } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { buildGuestInitrd } from '../../../scripts/emulated-host/guest-initrd.mjs';
import { ensureKernels, guestKernel } from '../../../scripts/emulated-host/kernels.mjs';
import { CHECK, COUNTER } from './counter.js';
import { Terminal } from './terminal.js';

/** Whether this is the emulated host: slow, and with the quirks of QEMU's software emulation. */
export const EMULATED = process.env.KVMSNAP_EMULATED_HOST === '1';

/**
 * As shared by every Linux test. `8250.nr_uarts=1`: each absent port costs exits to find out.
 * `noxsave`: QEMU before 8.2 does not let KVM intercept XSETBV, so that KVM takes the guest's XCR0
 * for 1 and drops its SSE and AVX registers; with FXSAVE guests there are whole.
 */
export const CMDLINE = [
  'console=ttyS0 panic=-1 quiet',
  'mitigations=off nokaslr tsc=reliable cryptomgr.notests 8250.nr_uarts=1',
  ...(EMULATED ? ['noxsave'] : []),
].join(' ');

const MOUNTS = `#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
`;

/**
 * For a program to type at: no echo, lines end as programs write them, and no prompt, since the
 * console is the shell's script.
 */
const QUIET_SHELL = `${MOUNTS}
stty -echo -onlcr
echo guest-is-up
exec sh /dev/ttyS0
`;

/** For a person: prompt, echo, line editing. */
const PERSONS_SHELL = `${MOUNTS}
exec setsid -c sh
`;

export interface KernelEntry {
  kernel: 'vmlinux' | 'bzImage';
  /** Debian's regular kernel, large and slow to boot, has drivers that the default does not. */
  flavour?: 'cloud' | 'regular';
  elfEntry?: 'pvh' | '64-bit';
}

export interface Guest extends AsyncDisposable {
  vm: Vm;
  terminal: Terminal;
}

export async function boot(
  options: Partial<VmOptions> & { entry?: KernelEntry; shell?: 'program' | 'person' } = {},
): Promise<Guest> {
  const { entry = { kernel: 'vmlinux' }, shell = 'program', ...rest } = options;
  const initrd = buildGuestInitrd({
    init: shell === 'program' ? QUIET_SHELL : PERSONS_SHELL,
    files: {
      'bin/counter': { data: COUNTER, mode: 0o755 },
      'bin/check-files': { data: CHECK, mode: 0o755 },
    },
  });
  const images = entry.flavour === 'regular' ? ensureKernels().host : guestKernel();
  const vm = await Vm.create({
    kernel: images[entry.kernel],
    ...(entry.elfEntry ? { elfEntry: entry.elfEntry } : {}),
    initrd,
    cmdline: CMDLINE,
    memory: MiB(128),
    ...rest,
  });
  const terminal = new Terminal(vm.console, vm.console);
  try {
    await vm.start();
    if (shell === 'program') await terminal.until(/guest-is-up\n/);
  } catch (error) {
    await vm.close();
    throw error;
  }
  return { vm, terminal, [Symbol.asyncDispose]: () => vm.close() };
}

/** Switches the guest off from inside, and gives why the machine stopped. */
export async function powerOff(guest: Guest): Promise<StopInfo> {
  guest.terminal.type('poweroff -f\n');
  return guest.vm.wait();
}
