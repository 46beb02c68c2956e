// What is measured of QEMU: the same machine saved and cloned in its two ways.
import { rmSync } from 'node:fs';
import path from 'node:path';
import { Machine } from './machine.mjs';

const now = () => performance.now() * 1000;

/** A process of QEMU's, for as long as `use` takes. */
async function using(options, scratch, use) {
  const machine = await Machine.start(options, scratch);
  try {
    return await use(machine);
  } finally {
    await machine.end();
  }
}

/** The same, from when its guest has filled its memory. */
const usingBooted = (options, scratch, use) =>
  using(options, scratch, async (machine) => {
    if ((await machine.heard()) !== 'R') throw new Error('the guest does not come up');
    return use(machine);
  });

/** Whether QEMU runs the guest with this accelerator; why not, as text, if it does not. */
export async function failureOf(options, scratch) {
  try {
    await usingBooted(options, scratch, (machine) => machine.ping());
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

/** A clone: until it is ready, when `enter` has put it there, and until its guest answers. */
async function measureClone(options, { scratch, record }, name, enter) {
  const start = now();
  await using(options, scratch, async (clone) => {
    await enter(clone.monitor);
    await clone.monitor.execute('cont');
    record(`${name}_ready`, now() - start);
    await clone.ping();
    record(`${name}_first_exit`, now() - start);
    await requireContent(clone, options.memoryMiB);
  });
}

/** Takes `measure` in turns, and removes its files after each. */
async function inRounds(runs, files, measure) {
  for (let i = 0; i < runs; i++) {
    try {
      await measure();
    } finally {
      for (const file of files) rmSync(file, { force: true });
    }
  }
}

const SNAPSHOT = { tag: 'bench', vmstate: 'disk', devices: ['disk'] };

/** savevm and loadvm: memory and devices in a qcow2 file. */
export async function measureSavevm(options, { scratch, runs, record }) {
  const disk = path.join(scratch, 'savevm.qcow2');
  await inRounds(runs, [disk], async () => {
    await makeDisk(options, disk, scratch);
    await usingBooted({ ...options, disk }, scratch, async (source) => {
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
    });
    const cloneOptions = { ...options, disk, wait: 'paused' };
    await measureClone(cloneOptions, { scratch, record }, 'qemu_loadvm', (monitor) =>
      monitor.job('snapshot-load', SNAPSHOT),
    );
  });
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
  await inRounds(runs, [memory, state], async () => {
    const sourceOptions = { ...options, ram: { path: memory, share: true } };
    await usingBooted(sourceOptions, scratch, async ({ monitor }) => {
      const start = now();
      await monitor.execute('stop');
      await ignoreShared(monitor);
      await monitor.execute('migrate', { uri: `exec:cat > ${quoted(state)}` });
      await monitor.migrated();
      record('qemu_template_save', now() - start);
    });
    const cloneOptions = { ...options, ram: { path: memory, share: false }, wait: 'incoming' };
    for (let j = 0; j < clones; j++) {
      await measureClone(
        cloneOptions,
        { scratch, record },
        'qemu_template_clone',
        async (monitor) => {
          await ignoreShared(monitor);
          await monitor.execute('migrate-incoming', { uri: `exec:cat ${quoted(state)}` });
          await monitor.migrated();
        },
      );
    }
  });
}
