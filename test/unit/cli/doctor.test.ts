import { describe, expect, it } from 'vitest';
import { renderChecks } from '../../../lib/cli/commands/doctor.js';
import { CAPABILITY_USES } from '../../../lib/cli/doctor/capabilities.js';
import { isUsable, judge } from '../../../lib/cli/doctor/checks.js';
import type { Facts } from '../../../lib/cli/doctor/facts.js';
import { kvmFlavour } from '../../../lib/cli/doctor/flavour.js';
import { GiB } from '../../../lib/units.js';

const capabilities = Object.fromEntries(Object.keys(CAPABILITY_USES).map((name) => [name, 1]));

/** A bare-metal AMD host on which all is well, but for what a test changes. */
function facts(change: Partial<Facts> = {}): Facts {
  return {
    platform: 'linux-x64',
    node: 'v20.19.0',
    kernel: '6.12.0',
    uid: 1000,
    device: { exists: true, mode: 0o20660, gid: 104 },
    cpuFlags: ['fpu', 'svm'],
    cpuModel: 'a CPU',
    modules: ['kvm', 'kvm_amd'],
    addon: { ok: true, value: true },
    host: {
      ok: true,
      value: {
        apiVersion: 12,
        capabilities,
        supportedCpuid: new Uint8Array(),
        brand: new Uint8Array(48),
        msrIndices: new Uint32Array(40),
        tscKhz: 2_400_000,
        vcpuMmapSize: 12_288,
        xsaveSize: 4096,
      },
    },
    missingGuests: [],
    memory: { total: GiB(16), available: GiB(8) },
    maxMapCount: 65_530,
    hugePages: { anonymous: 'madvise', shmem: 'advise' },
    userfaultfd: { sysctl: 1, device: false },
    ...change,
  };
}

const verdict = (change: Partial<Facts>) => {
  const checks = judge(facts(change));
  const find = (name: string) => checks.find((check) => check.name === name);
  return { usable: isUsable(checks), text: renderChecks(checks, false), find };
};

describe('doctor', () => {
  it('finds nothing wrong where all is well', () => {
    const { usable, text } = verdict({});
    expect(usable).toBe(true);
    expect(text).not.toMatch(/WARN|FAIL/);
    expect(text).toContain('Machines can run here');
  });

  it('says how to get a device that is missing', () => {
    const missing = { device: { exists: false, error: 'ENOENT' }, modules: [] };
    const host: Facts['host'] = { ok: false, code: 'ERR_NO_KVM', message: 'none' };
    const fix = (cpuFlags: string[], modules: string[] = []) =>
      verdict({ ...missing, host, cpuFlags, modules }).find('/dev/kvm');
    expect(fix(['vmx'])).toMatchObject({
      status: 'fail',
      fix: expect.stringContaining('kvm_intel'),
    });
    expect(fix(['svm'])?.fix).toContain('kvm_amd');
    expect(fix(['hypervisor'])?.fix).toContain('nested');
    expect(fix([])?.fix).toContain('firmware');
    expect(fix(['svm'], ['kvm', 'kvm_amd'])?.fix).toContain('container');
    expect(verdict({ ...missing, host }).usable).toBe(false);
  });

  it('says who may open a device that is forbidden', () => {
    const { find, usable } = verdict({
      device: { exists: true, mode: 0o20660, gid: 104, error: 'EACCES' },
      host: { ok: false, code: 'ERR_NO_KVM', message: 'forbidden' },
    });
    expect(usable).toBe(false);
    expect(find('/dev/kvm')?.text).toContain('mode 660, group 104');
    expect(find('/dev/kvm')?.fix).toContain('usermod -aG kvm');
  });

  it('works without the addon, and says how to build it', () => {
    const failed = {
      ok: false,
      code: 'ERR_ADDON',
      message: 'it is at none of:\n  a\n  b',
    } as const;
    const { usable, text, find } = verdict({ addon: failed, host: failed });
    expect(usable).toBe(false);
    expect(find('addon')?.fix).toContain('npm run build');
    expect(text).toContain('it is at none of: a b');
  });

  it('fails for a capability that everything needs, warns for one that something needs', () => {
    const without = (name: string) => {
      const host = facts().host;
      if (!host.ok) throw new Error('the sample has a host');
      const changed = { ...capabilities, [name]: 0 };
      return verdict({ host: { ok: true, value: { ...host.value, capabilities: changed } } });
    };
    expect(without('KVM_CAP_USER_MEMORY').usable).toBe(false);
    const wanted = without('KVM_CAP_TSC_CONTROL');
    expect(wanted.usable).toBe(true);
    expect(wanted.text).toMatch(/WARN +KVM_CAP_TSC_CONTROL +missing: restoring snapshots/);
    expect(without('KVM_CAP_NESTED_STATE').find('KVM_CAP_NESTED_STATE')?.status).toBe('info');
  });

  it.each([
    [['svm'], ['kvm', 'kvm_amd'], 'svm', false],
    [['vmx', 'hypervisor'], ['kvm', 'kvm_intel'], 'vmx', true],
    // Both vendors' modules built in: the flag tells.
    [['svm'], ['kvm', 'kvm_intel', 'kvm_amd'], 'svm', false],
    // PVM, on hardware that could do better, and on a virtual machine without.
    [['vmx'], ['kvm', 'kvm_pvm'], 'pvm', false],
    [['hypervisor'], ['kvm', 'kvm_pvm'], 'pvm', true],
    // /sys hidden.
    [['vmx'], [], 'vmx', false],
    [['hypervisor'], [], 'software', true],
  ] as const)('flags %j with modules %j are %s', (cpuFlags, modules, kind, nested) => {
    const found = kvmFlavour(facts({ cpuFlags: [...cpuFlags], modules: [...modules] }));
    expect(found).toMatchObject({ kind, nested });
  });

  it('judges the system beside KVM', () => {
    expect(verdict({ kernel: '6.6.9' }).find('PAGEMAP_SCAN')?.status).toBe('warn');
    expect(verdict({ kernel: '6.7.0-rc1' }).find('PAGEMAP_SCAN')?.status).toBe('ok');
    expect(verdict({ maxMapCount: 1000 }).find('vm.max_map_count')?.fix).toContain('sysctl');
    const denied = verdict({ userfaultfd: { sysctl: 0, device: false } }).find('userfaultfd');
    expect(denied?.status).toBe('warn');
    const root = verdict({ userfaultfd: { sysctl: 0, device: false }, uid: 0 });
    expect(root.find('userfaultfd')?.status).toBe('ok');
    expect(verdict({ platform: 'linux-arm64' }).usable).toBe(false);
  });
});
