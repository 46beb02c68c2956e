// What is measured of QEMU: the same machine saved and cloned in its two ways.
import { rmSync } from 'node:fs';
import path from 'node:path';
import { Machine } from './machine.mjs';

const now = () => performance.now() * 1000;

async function using(options, scratch, use) {
  const machine = await Machine.start(options, scratch);
  try {
    return await use(machine);
  } finally {
    await machine.end();
  }
}

/** A process, and its guest until it has filled its memory. */
async function booted(options, scratch) {
  const machine = await Machine.start(options, scratch);
  try {
    if ((await machine.heard()) !== 'R') throw new Error('the guest does not come up');
    return machine;
  } catch (error) {
    await machine.end();
    throw error;
  }
}

/** Whether QEMU runs the guest with this accelerator; why not, as text, if it does not. */
export async function failureOf(options, scratch) {
  try {
    const machine = await booted(options, scratch);
    try {
      await machine.ping();
    } finally {
      await machine.end();
    }
    return undefined;
  } catch (error) {
    return error.message;
  }
}

/** A clone with memory of its own making would be fast too: the guest's last word must be there. */
async function requireContent({ monitor }, memoryMiB) {
  const last = (memoryMiB * 2 ** 20 - 4096).toString(16);
  const text = await monitor.execute('human-monitor-command', {
    'command-line': `xp /1wx 0x${last}`,
  });
  if (!/: 0x00000001\s*$/.test(text))
    throw new Error(`the clone's memory is not its source's: ${text}`);
}

// With QEMU's own means: there need not be a qemu-img.
async function makeDisk(options, file, scratch) {
  await using({ ...options, wait: 'paused' }, scratch, async ({ monitor }) => {
    // Snapshots' memory lies beyond the disk's own content, of which there is none.
    const size = 1024 * 1024;
    await monitor.job('blockdev-create', { options: { driver: 'file', filename: file, size: 0 } });
    await monitor.execute('blockdev-add', { driver: 'file', 'node-name': 'f', filename: file });
    await monitor.job('blockdev-create', { options: { driver: 'qcow2', file: 'f', size } });
  });
}

const SNAPSHOT = { tag: 'bench', vmstate: 'disk', devices: ['disk'] };

/** savevm and loadvm: memory and devices in a qcow2 file. */
export async function measureSavevm(options, { scratch, runs, record }) {
  const disk = path.join(scratch, 'savevm.qcow2');
  for (let i = 0; i < runs; i++) {
    try {
      await makeDisk(options, disk, scratch);
      const source = await booted({ ...options, disk }, scratch);
      try {
        let start = now();
        await source.monitor.job('snapshot-save', SNAPSHOT);
        record('qemu_savevm', now() - start);
        // The guest runs on afterwards; a snapshot that broke it would not be worth its time.
        await source.ping();
        start = now();
        await source.monitor.execute('stop');
        await source.monitor.job('snapshot-load', SNAPSHOT);
        await source.monitor.execute('cont');
        record('qemu_loadvm_same_process', now() - start);
        await source.ping();
      } finally {
        await source.end();
      }
      const start = now();
      await using({ ...options, disk, wait: 'paused' }, scratch, async (clone) => {
        await clone.monitor.job('snapshot-load', SNAPSHOT);
        await clone.monitor.execute('cont');
        record('qemu_loadvm_ready', now() - start);
        await clone.ping();
        record('qemu_loadvm_first_exit', now() - start);
        await requireContent(clone, options.memoryMiB);
      });
    } finally {
      rmSync(disk, { force: true });
    }
  }
}

const ignoreShared = (monitor) =>
  monitor.execute('migrate-set-capabilities', {
    capabilities: [{ capability: 'x-ignore-shared', state: true }],
  });

// For a shell: the path is this program's own, and quoted all the same.
const quoted = (file) => `'${file.replaceAll("'", `'\\''`)}'`;

/** Memory in a file that clones map privately; only the devices' state is migrated, through another. */
export async function measureTemplate(options, { scratch, runs, clones, record }) {
  const memory = path.join(scratch, 'template.ram');
  const state = path.join(scratch, 'template.state');
  for (let i = 0; i < runs; i++) {
    try {
      const source = await booted({ ...options, ram: { path: memory, share: true } }, scratch);
      try {
        const start = now();
        await source.monitor.execute('stop');
        await ignoreShared(source.monitor);
        await source.monitor.execute('migrate', { uri: `exec:cat > ${quoted(state)}` });
        await source.monitor.migrated();
        record('qemu_template_save', now() - start);
      } finally {
        await source.end();
      }
      for (let j = 0; j < clones; j++) {
        const start = now();
        const cloneOptions = { ...options, ram: { path: memory, share: false }, wait: 'incoming' };
        await using(cloneOptions, scratch, async (clone) => {
          await ignoreShared(clone.monitor);
          await clone.monitor.execute('migrate-incoming', { uri: `exec:cat ${quoted(state)}` });
          await clone.monitor.migrated();
          await clone.monitor.execute('cont');
          record('qemu_template_clone_ready', now() - start);
          await clone.ping();
          record('qemu_template_clone_first_exit', now() - start);
          await requireContent(clone, options.memoryMiB);
        });
      }
    } finally {
      rmSync(memory, { force: true });
      rmSync(state, { force: true });
    }
  }
}
