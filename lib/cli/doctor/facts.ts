/** What this host is, as far as can be found out without changing anything. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  statSync,
} from 'node:fs';
import { arch, platform, release } from 'node:os';
import { KvmsnapError } from '../../errors.js';
import type { NativeHost } from '../../native/binding.js';
import { GUESTS, type GuestName, guestPath } from '../../native/guests.js';
import { nativeBinding } from '../../native/load.js';
import { errnoCode } from '../../snapshot/failures.js';

export type Attempt<T> = { ok: true; value: T } | { ok: false; code: string; message: string };

export interface Facts {
  platform: string;
  node: string;
  kernel: string;
  /** Effective user id. */
  uid: number;
  /** `/dev/kvm`: error of opening it to read and write, if any, and who may. */
  device: { exists: boolean; error?: string; mode?: number; gid?: number };
  /** Flags of the first processor in /proc/cpuinfo. */
  cpuFlags: string[];
  cpuModel: string;
  /** Of kvm, kvm_intel, kvm_amd and kvm_pvm, those in /sys/module. */
  modules: string[];
  addon: Attempt<true>;
  host: Attempt<NativeHost>;
  /** Demo guests that are not built. */
  missingGuests: string[];
  /** Bytes; 0 where /proc does not say. */
  memory: { total: number; available: number };
  /** vm.max_map_count. */
  maxMapCount: number | undefined;
  /** The chosen word of /sys/kernel/mm/transparent_hugepage/enabled and shmem_enabled. */
  hugePages: { anonymous?: string; shmem?: string };
  /** vm.unprivileged_userfaultfd, absent without userfaultfd(2); and whether its device opens. */
  userfaultfd: { sysctl?: number; device: boolean };
}

const MODULES = ['kvm', 'kvm_intel', 'kvm_amd', 'kvm_pvm'];

export function gatherFacts(): Facts {
  const cpu = read('/proc/cpuinfo') ?? '';
  const meminfo = read('/proc/meminfo') ?? '';
  const maxMapCount = Number(read('/proc/sys/vm/max_map_count'));
  const sysctl = read('/proc/sys/vm/unprivileged_userfaultfd');
  const anonymous = chosen(read('/sys/kernel/mm/transparent_hugepage/enabled'));
  const shmem = chosen(read('/sys/kernel/mm/transparent_hugepage/shmem_enabled'));
  return {
    platform: `${platform()}-${arch()}`,
    node: process.version,
    kernel: release(),
    uid: process.geteuid?.() ?? -1,
    device: device(),
    cpuFlags: (field(cpu, 'flags') ?? '').split(' ').filter((flag) => flag !== ''),
    cpuModel: field(cpu, 'model name') ?? 'unknown',
    modules: MODULES.filter((name) => existsSync(`/sys/module/${name}`)),
    addon: attempt(() => Boolean(nativeBinding()) as true),
    host: attempt(() => nativeBinding().host()),
    missingGuests: Object.keys(GUESTS).filter((name) => !existsSync(guestPath(name as GuestName))),
    memory: {
      total: kibibytes(meminfo, 'MemTotal'),
      available: kibibytes(meminfo, 'MemAvailable'),
    },
    maxMapCount: maxMapCount > 0 ? maxMapCount : undefined,
    hugePages: { ...(anonymous ? { anonymous } : {}), ...(shmem ? { shmem } : {}) },
    userfaultfd: {
      ...(sysctl === undefined ? {} : { sysctl: Number(sysctl) }),
      device: isAccessible('/dev/userfaultfd'),
    },
  };
}

function device(): Facts['device'] {
  try {
    const { mode, gid } = statSync('/dev/kvm');
    try {
      closeSync(openSync('/dev/kvm', 'r+'));
      return { exists: true, mode, gid };
    } catch (error) {
      return { exists: true, mode, gid, error: errnoCode(error) ?? String(error) };
    }
  } catch (error) {
    return { exists: false, error: errnoCode(error) ?? String(error) };
  }
}

function attempt<T>(work: () => T): Attempt<T> {
  try {
    return { ok: true, value: work() };
  } catch (error) {
    const code = error instanceof KvmsnapError ? error.code : 'unknown';
    return { ok: false, code, message: error instanceof Error ? error.message : String(error) };
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function isAccessible(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

const field = (text: string, name: string): string | undefined =>
  new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(text)?.[1];

const kibibytes = (text: string, name: string): number =>
  Number.parseInt(field(text, name) ?? '0', 10) * 1024;

/** `always [madvise] never` -> `madvise`. */
const chosen = (text: string | undefined): string | undefined => /\[(\w+)\]/.exec(text ?? '')?.[1];
