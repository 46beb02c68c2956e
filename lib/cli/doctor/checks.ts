/** Facts judged: what is well, what is lost, what to do. */

import { MiB } from '../../units.js';
import { formatBytes } from '../output.js';
import { CAPABILITY_USES } from './capabilities.js';
import type { Facts } from './facts.js';
import { kvmFlavour } from './flavour.js';

export interface Check {
  name: string;
  /** `fail`: kvmsnap cannot run machines. `warn`: something is lost. `info`: a fact. */
  status: 'ok' | 'warn' | 'fail' | 'info';
  text: string;
  /** What to do about it. */
  fix?: string;
}

export function judge(facts: Facts): Check[] {
  return [...platformChecks(facts), ...kvmChecks(facts), ...memoryChecks(facts)];
}

export const isUsable = (checks: readonly Check[]): boolean =>
  checks.every(({ status }) => status !== 'fail');

function platformChecks({
  platform,
  node,
  kernel,
  cpuModel,
  addon,
  missingGuests,
}: Facts): Check[] {
  const supported = platform === 'linux-x64';
  const checks: Check[] = [
    {
      name: 'platform',
      status: supported ? 'ok' : 'fail',
      text: `${platform}, Linux ${kernel}, Node ${node}, ${cpuModel}`,
      ...(supported ? {} : { fix: 'kvmsnap runs on linux-x64 only' }),
    },
    addon.ok
      ? { name: 'addon', status: 'ok', text: 'loads' }
      : {
          name: 'addon',
          status: 'fail',
          text: addon.message,
          fix: 'npm run build (needs g++ 12, make and python3)',
        },
  ];
  if (missingGuests.length > 0) {
    checks.push({
      name: 'demo guests',
      status: 'warn',
      text: `not built: ${missingGuests.join(', ')}; \`kvmsnap demo\` needs them`,
      fix: 'npm run build:guests (needs gcc and binutils)',
    });
  }
  return checks;
}

function kvmChecks(facts: Facts): Check[] {
  const checks = [deviceCheck(facts)];
  const { host, addon } = facts;
  if (facts.device.exists) {
    const { kind, summary } = kvmFlavour(facts);
    const isHardware = kind === 'vmx' || kind === 'svm';
    checks.push({
      name: 'which KVM',
      status: isHardware ? 'ok' : 'warn',
      text: summary,
      ...(isHardware
        ? {}
        : {
            fix:
              'for Linux guests use a host with VMX or SVM, or the emulated one of ' +
              'scripts/emulated-host',
          }),
    });
  }
  if (host.ok) {
    checks.push(...capabilityChecks(host.value.capabilities));
    checks.push({
      name: 'CPU state',
      status: 'info',
      text:
        `TSC ${(host.value.tscKhz / 1000).toFixed(0)} MHz, ${host.value.msrIndices.length} MSRs, ` +
        `XSAVE area ${host.value.xsaveSize} bytes`,
    });
  } else if (addon.ok && facts.device.error === undefined) {
    checks.push({ name: 'KVM', status: 'fail', text: host.message });
  }
  return checks;
}

function deviceCheck({ device, cpuFlags, modules }: Facts): Check {
  const name = '/dev/kvm';
  if (!device.exists) {
    return { name, status: 'fail', text: 'does not exist', fix: howToGetKvm(cpuFlags, modules) };
  }
  if (device.error === undefined) return { name, status: 'ok', text: 'can be read and written' };
  const denied = device.error === 'EACCES' || device.error === 'EPERM';
  const mode = ((device.mode ?? 0) & 0o777).toString(8);
  return {
    name,
    status: 'fail',
    text: `cannot be opened: ${device.error} (mode ${mode}, group ${device.gid})`,
    fix: denied
      ? 'add yourself to its group (sudo usermod -aG kvm "$USER", then log in again), or, in a ' +
        'container, pass the device through (--device /dev/kvm)'
      : 'reload the module: sudo modprobe -r kvm_intel kvm_amd; sudo modprobe kvm_intel (or kvm_amd)',
  };
}

function howToGetKvm(flags: readonly string[], modules: readonly string[]): string {
  if (modules.includes('kvm_intel') || modules.includes('kvm_amd') || modules.includes('kvm_pvm')) {
    return (
      'a KVM module is loaded: in a container, pass the device through (--device /dev/kvm); else ' +
      'sudo mknod -m 660 /dev/kvm c 10 232'
    );
  }
  if (flags.includes('vmx')) return 'load the module: sudo modprobe kvm_intel';
  if (flags.includes('svm')) return 'load the module: sudo modprobe kvm_amd';
  if (flags.includes('hypervisor')) {
    return (
      'this is a virtual machine without nested virtualisation: turn it on in its host, take a ' +
      'cloud instance that offers it or is bare metal, or use the emulated host of ' +
      'scripts/emulated-host (slow)'
    );
  }
  return 'turn on virtualisation (VT-x or SVM) in the firmware, then load kvm_intel or kvm_amd';
}

function capabilityChecks(capabilities: Record<string, number>): Check[] {
  return Object.entries(CAPABILITY_USES).map(([name, { need, lost }]): Check => {
    const value = capabilities[name] ?? 0;
    if (value > 0) return { name, status: 'ok', text: `${value}` };
    if (need === 'required') {
      return { name, status: 'fail', text: `missing: ${lost}`, fix: 'use a newer kernel' };
    }
    return { name, status: need === 'wanted' ? 'warn' : 'info', text: `missing: ${lost}` };
  });
}

/** A snapshot of many small extents, and machines by the hundred, take mappings. */
const ENOUGH_MAPPINGS = 65_530;

function memoryChecks(facts: Facts): Check[] {
  const { memory, maxMapCount, hugePages } = facts;
  const total = `${formatBytes(memory.available)} available of ${formatBytes(memory.total)}`;
  const isLow = memory.available < MiB(512);
  const checks: Check[] = [
    {
      name: 'memory',
      status: isLow ? 'warn' : 'ok',
      text: isLow ? `${total}: little room for guests (the demo takes 64 MiB)` : total,
    },
    userfaultfdCheck(facts),
    pagemapScanCheck(facts.kernel),
    {
      name: 'huge pages',
      status: hugePages.shmem === undefined ? 'info' : 'ok',
      text:
        `anonymous ${hugePages.anonymous ?? 'none'}, shmem ${hugePages.shmem ?? 'none'}` +
        (hugePages.shmem === 'never' || hugePages.shmem === 'deny' || !hugePages.shmem
          ? ': guest RAM is in 4 KiB pages, so a freeze tears down more page tables'
          : ''),
    },
  ];
  if (maxMapCount !== undefined) {
    const enough = maxMapCount >= ENOUGH_MAPPINGS;
    checks.push({
      name: 'vm.max_map_count',
      status: enough ? 'ok' : 'warn',
      text: enough ? `${maxMapCount}` : `${maxMapCount}: many machines or forks will not fit`,
      ...(enough ? {} : { fix: `sudo sysctl vm.max_map_count=${ENOUGH_MAPPINGS}` }),
    });
  }
  return checks;
}

function userfaultfdCheck({ userfaultfd: { sysctl, device }, uid }: Facts): Check {
  const name = 'userfaultfd';
  if (sysctl === undefined) {
    return {
      name,
      status: 'warn',
      text: 'not in this kernel (CONFIG_USERFAULTFD): dirty tracking by write-protect is lost',
    };
  }
  // userfaultfd(2): faults from kernel mode, which KVM's are, need privilege, the sysctl or the device.
  if (uid === 0 || sysctl === 1 || device) return { name, status: 'ok', text: 'allowed' };
  return {
    name,
    status: 'warn',
    text: 'not allowed for this user: dirty tracking by write-protect is lost',
    fix: 'sudo sysctl vm.unprivileged_userfaultfd=1, or give access to /dev/userfaultfd',
  };
}

/** PAGEMAP_SCAN came with Linux 6.7 (Documentation/admin-guide/mm/pagemap.rst). */
function pagemapScanCheck(kernel: string): Check {
  const [major = 0, minor = 0] = kernel.split('.').map((part) => Number.parseInt(part, 10));
  const present = major > 6 || (major === 6 && minor >= 7);
  return {
    name: 'PAGEMAP_SCAN',
    status: present ? 'ok' : 'warn',
    text: present
      ? 'in this kernel (6.7 and later have it)'
      : `not in Linux ${kernel} (6.7 has it): finding copied pages takes longer`,
  };
}
