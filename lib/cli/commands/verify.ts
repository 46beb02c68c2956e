import type { Command } from 'commander';
import { KvmsnapError } from '../../errors.js';
import { nativeBinding } from '../../native/load.js';
import type { DigestFile } from '../../snapshot/digest.js';
import { SnapshotStore } from '../../snapshot/store.js';
import { limitsOf, type StoreOptions, withJson, withReadStore } from '../options.js';
import { formatBytes, print, printable, printJson } from '../output.js';
import { progressBar } from '../progress.js';

export function addVerify(program: Command): void {
  const command = program
    .command('verify')
    .description('Read every byte of a snapshot and compare it with its checksums.')
    .argument('<ref>', 'tag or sha256: digest');
  withJson(withReadStore(command)).action(
    async (ref: string, options: StoreOptions & { json?: boolean }) => {
      const store = await SnapshotStore.open(options.store, limitsOf(options));
      using bar = progressBar('verifying', !options.json);
      const digestFile = fastDigest();
      const report = await store.verify(ref, {
        ...(digestFile ? { digestFile } : {}),
        onProgress: (done, total) => bar.update(done, total),
      });
      bar[Symbol.dispose]();
      if (options.json) return printJson(report);
      print(
        `${printable(report.digest)} is whole: ${report.blobs} blobs, ${formatBytes(report.bytes)}, ` +
          `${report.chunks} memory chunks`,
      );
    },
  );
}

/** Stores can be verified where there is no addon, and so no KVM; it takes longer. */
function fastDigest(): DigestFile | undefined {
  try {
    return nativeBinding().digestFile;
  } catch (error) {
    if (error instanceof KvmsnapError && error.code === 'ERR_ADDON') return undefined;
    throw error;
  }
}
