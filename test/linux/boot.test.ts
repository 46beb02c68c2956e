import { cpus } from 'node:os';
import { describe, expect, test } from 'vitest';
import { boot, CMDLINE, type KernelEntry } from './support/guest.js';
import { whyNoLinux } from './support/host.js';
import { complaints } from './support/kernel-log.js';

const PVH: KernelEntry = { kernel: 'vmlinux', elfEntry: 'pvh' };
const ELF64: KernelEntry = { kernel: 'vmlinux', elfEntry: '64-bit' };
const BZIMAGE: KernelEntry = { kernel: 'bzImage' };

describe.skipIf(whyNoLinux())("Debian's kernel boots to a shell, and its log is clean", () => {
  test.each([
    { name: 'vmlinux by its PVH note', entry: PVH, vcpus: 1 },
    { name: 'vmlinux by its PVH note', entry: PVH, vcpus: 2 },
    { name: 'vmlinux at its 64-bit entry', entry: ELF64, vcpus: 1 },
    { name: 'vmlinux at its 64-bit entry', entry: ELF64, vcpus: 2 },
    { name: 'bzImage by the 64-bit boot protocol', entry: BZIMAGE, vcpus: 1 },
    { name: 'bzImage by the 64-bit boot protocol', entry: BZIMAGE, vcpus: 2 },
  ])('$name, $vcpus vCPUs', async ({ entry, vcpus }) => {
    await using guest = await boot({ entry, vcpus });
    const { terminal, vm } = guest;

    expect(await terminal.run('nproc')).toBe(`${vcpus}\n`);
    expect(await terminal.run('cat /proc/interrupts')).toMatch(/IO-APIC +4-edge +ttyS0/);
    expect(await complaints(terminal)).toEqual([]);
    // As firmware leaves them: memory types, and CPUs with a name.
    expect(await terminal.run('cat /proc/mtrr')).toMatch(/^reg00: base=0x0c0000000 .*uncachable/);
    expect(await terminal.run("dmesg | grep -i 'mtrrs\\? disabled'; true")).toBe('');
    const [host] = cpus();
    expect(await terminal.run('grep -m1 "model name" /proc/cpuinfo')).toContain(host!.model.trim());
    // The clock that survives a snapshot, and the RTC that the guest set it by.
    const clocksource = '/sys/devices/system/clocksource/clocksource0/current_clocksource';
    expect(await terminal.run(`cat ${clocksource}`)).toBe('kvm-clock\n');
    const seconds = Number(await terminal.run('date +%s'));
    expect(Math.abs(seconds - Date.now() / 1000)).toBeLessThan(60);

    terminal.type('poweroff -f\n');
    expect(await vm.wait()).toEqual({ reason: 'power-off' });
    expect(vm.status).toBe('stopped');
  });
});

test.skipIf(whyNoLinux())('A guest that halts ends its machine, with two vCPUs', async () => {
  await using guest = await boot({ vcpus: 2 });
  guest.terminal.type('halt -f\n');
  await guest.terminal.until(/reboot: System halted/);
  expect(await guest.vm.wait()).toEqual({ reason: 'halt' });
});

test.skipIf(whyNoLinux())(
  'A guest without IOAPIC and ACPI has a console, and ends by halting',
  async () => {
    await using guest = await boot({ cmdline: `${CMDLINE} noapic acpi=off` });
    const { terminal, vm } = guest;
    expect(await terminal.run('cat /proc/interrupts')).toMatch(/XT-PIC +ttyS0/);
    terminal.type('poweroff -f\n');
    expect(await vm.wait()).toEqual({ reason: 'halt' });
  },
);

describe.skipIf(whyNoLinux())('A guest that reboots stops its machine', () => {
  test.each([
    { cmdline: 'reboot=t', what: 'a triple fault' },
    { cmdline: 'reboot=k', what: 'the keyboard controller' },
    { cmdline: 'reboot=a', what: "ACPI's reset register" },
    { cmdline: 'reboot=p', what: "the chipset's reset register" },
    { cmdline: 'reboot=e', what: 'EFI, which is not there, and then the reset vector' },
    { cmdline: '', what: 'what Linux chooses, with two vCPUs', vcpus: 2 },
  ])('by $what', async ({ cmdline, vcpus = 1 }) => {
    await using guest = await boot({ cmdline: `${CMDLINE} ${cmdline}`, vcpus });
    guest.terminal.type('reboot -f\n');
    expect(await guest.vm.wait()).toEqual({ reason: 'reset' });
  });

  test.each(['reboot=t', ''])('a kernel that panics, with "%s"', async (cmdline) => {
    await using guest = await boot({ cmdline: `${CMDLINE} ${cmdline}` });
    guest.terminal.type('echo c > /proc/sysrq-trigger\n');
    await guest.terminal.until(/Kernel panic - not syncing: sysrq triggered crash/);
    expect(await guest.vm.wait()).toEqual({ reason: 'reset' });
  });
});

describe.skipIf(whyNoLinux())('A person at the console', () => {
  test('sees a prompt, types a command, sees it echoed and answered', async () => {
    await using guest = await boot({ shell: 'person' });
    const { terminal } = guest;
    await terminal.until(/# /);
    terminal.type('echo $((6 * 7)) and "$(uname -s)"\n');
    await terminal.until(/echo \$\(\(6 \* 7\)\) and "\$\(uname -s\)"\r\n/);
    await terminal.until(/42 and Linux\r\n/);
    await terminal.until(/# /);
    // Ctrl-C, the character, becomes a signal in the guest.
    // A process of its own from the first letter on: the shell drops a Ctrl-C between two commands.
    terminal.type('sh -c "echo asleep; exec sleep 1000"\n');
    await terminal.until(/asleep\r\n/);
    terminal.type('\x03');
    await terminal.until(/# /);
    terminal.type('exit 0\n');
    await terminal.until(/Attempted to kill init/);
    expect(terminal.text).toContain('42 and Linux');
  });
});
