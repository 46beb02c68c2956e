/** Finds and loads the addon, once a process, and explains itself when it cannot. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KvmsnapError } from '../errors.js';
import type { NativeBinding } from './binding.js';

/** Works from `lib/native` and from `dist/native` alike. */
const PACKAGE_ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const require = createRequire(import.meta.url);

let loaded: NativeBinding | undefined;

/** The addon. `ERR_ADDON` lists every path that was tried and says how to get one. */
export function nativeBinding(): NativeBinding {
  if (loaded === undefined) {
    const binding = load();
    binding.setup(KvmsnapError);
    loaded = binding;
  }
  return loaded;
}

function load(): NativeBinding {
  // For developers: a build with sanitizers, for example.
  const override = process.env.KVMSNAP_ADDON;
  if (override) return loadFile(override, 'KVMSNAP_ADDON');
  const prebuilt = join(
    PACKAGE_ROOT,
    'prebuilds',
    `${process.platform}-${process.arch}`,
    'kvmsnap.node',
  );
  if (existsSync(prebuilt)) return loadFile(prebuilt, 'the prebuilt addon');
  try {
    // `bindings` knows where node-gyp and cmake-js put what they build.
    return require('bindings')({ bindings: 'kvmsnap', module_root: PACKAGE_ROOT });
  } catch (cause) {
    const tries = (cause as { tries?: string[] }).tries ?? [];
    if (tries.length === 0) throw failure((cause as Error).message, cause);
    throw failure(`it is at none of these paths:\n  ${[prebuilt, ...tries].join('\n  ')}`, cause);
  }
}

function loadFile(path: string, what: string): NativeBinding {
  try {
    return require(path);
  } catch (cause) {
    throw failure(`${what}, ${path}: ${(cause as Error).message}`, cause);
  }
}

function failure(reason: string, cause: unknown): KvmsnapError {
  const platform = `${process.platform}-${process.arch}`;
  const fix =
    platform === 'linux-x64'
      ? `Build it: \`npm run build\` in ${PACKAGE_ROOT} (needs g++ 12, make and python3).`
      : `kvmsnap runs on linux-x64 only; this is ${platform}.`;
  return new KvmsnapError('ERR_ADDON', `the native addon cannot be loaded: ${reason}\n${fix}`, {
    cause,
  });
}
