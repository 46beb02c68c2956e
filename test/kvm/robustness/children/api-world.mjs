// Machines, snapshots and pools, and all that can be asked of them, at once and in any state.
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { MiB, Pool, Snapshot, SnapshotStore, TRACKERS, Vm } from '../../../../lib/index.js';
import { readGuest } from '../../../../lib/native/guests.js';
import { OnPurpose } from './api-calls.mjs';
import { EXIT, READ_PORT, SPIN } from './machines.mjs';

/** Alive at once; beyond it the oldest is closed. */
const MOST = { machines: 7, snapshots: 6, pools: 3 };
const MEMORY = MiB(4);
const CLAIMED = 0x1000;

const onPurpose = (error) => error instanceof OnPurpose;
const forever = () => new Promise(() => {});
const fail = () => {
  throw new OnPurpose('on purpose');
};

export class World {
  machines = [];
  snapshots = [];
  pools = [];
  /** Something was made that only the garbage collector closes. */
  forgets = false;
  #calls;
  #path;
  #store;
  #end = new AbortController();

  constructor(calls, path) {
    this.#calls = calls;
    this.#path = path;
  }

  async open() {
    this.#store = await SnapshotStore.open(this.#path, { create: true, durable: false });
  }

  /** One call or some, of which none is waited for. */
  step(choices) {
    const action = choices.weighted(ACTIONS);
    return ACTION[action](this, choices);
  }

  /** Closes all that there is, and all that is still to come of calls that are open. */
  end(choices) {
    this.#end.abort();
    const things = [...this.machines, ...this.pools, ...this.snapshots];
    while (things.length > 0) this.#close(things.splice(choices.below(things.length), 1)[0]);
  }

  call(name, begin, options) {
    return this.#calls.of(name, begin, options);
  }

  /** Fires when all is being closed. */
  get ended() {
    return this.#end.signal;
  }

  get store() {
    return this.#store;
  }

  vm(choices) {
    return this.machines.length === 0 ? undefined : choices.of(this.machines);
  }

  /** A machine that somebody else has closed may be asked, too. */
  keepMachine(vm) {
    if (vm) this.#keep(this.machines, vm, MOST.machines);
  }

  keepSnapshot(snapshot) {
    if (snapshot) this.#keep(this.snapshots, snapshot, MOST.snapshots);
  }

  keepPool(pool) {
    if (pool) this.#keep(this.pools, pool, MOST.pools);
  }

  nameOf(thing) {
    this.names ??= new WeakMap();
    this.named ??= 0;
    if (!this.names.has(thing)) this.names.set(thing, ++this.named);
    return `${thing.constructor.name}#${this.names.get(thing)}`;
  }

  #keep(list, thing, most) {
    list.push(thing);
    if (this.ended.aborted) this.#close(thing);
    else if (list.length > most) this.#close(list.shift());
  }

  #close(thing) {
    const name = `${this.nameOf(thing)}.close()`;
    if (thing instanceof Vm || thing instanceof Pool) void this.call(name, () => thing.close());
    else void this.call(name, () => thing.close(), { mayThrow: true });
  }
}

/** Ends by itself within some milliseconds, often at once. */
function signalOf(choices) {
  if (!choices.once(5)) return {};
  const after = choices.below(4);
  if (after === 0) return { signal: AbortSignal.abort(new OnPurpose('aborted')) };
  const controller = new AbortController();
  setTimeout(() => controller.abort(), after);
  return { signal: controller.signal };
}

const identityOf = (choices) =>
  choices.once(6)
    ? {
        identity: {
          generation: choices.of(['new', 'keep']),
          clock: choices.of(['host', 'keep', 'wrong']),
        },
      }
    : {};

/** What a handler or a page source does: at once, later, never, or wrongly. */
function answering(choices, good, wrong) {
  const delay = choices.below(3);
  return choices.weighted([
    [6, good],
    [4, (...asked) => sleep(delay).then(() => good(...asked))],
    [2, forever],
    [1, fail],
    [1, async () => Promise.reject(undefined)],
    [1, () => wrong],
  ]);
}

function pagingOf(choices) {
  const read = answering(
    choices,
    (_gpa, length) => new Uint8Array(length).fill(0x90),
    new Uint8Array(1),
  );
  return choices.weighted([
    [3, {}],
    [2, { record: true }],
    [1, { prefetch: [{ gpa: 0x8000n, count: 8 }] }],
    [
      4,
      {
        source: { read },
        faultBytes: choices.of([4096, 65536]),
        onError: choices.of([() => {}, fail]),
      },
    ],
    [2, { source: { read }, timeout: 1 + choices.below(5) }],
    [1, { faultBytes: 5 }],
  ]);
}

function machineOptions(choices) {
  const flat = (code) => ({
    image: Uint8Array.from(code),
    format: 'flat',
    mode: 'long',
    ring: 0,
    loadAddress: 0x8000n,
  });
  const native = { image: readGuest('counter'), mode: 'long', ring: 3 };
  return {
    memory: MEMORY,
    vcpus: choices.once(3) ? 2 : 1,
    irqchip: choices.once(4),
    ...(choices.once(5) ? { dirtyRing: 1024 } : {}),
    ...(choices.once(5) ? { generationId: { gpa: 0x200000n } } : {}),
    bare: choices.weighted([
      [4, native],
      [2, flat(READ_PORT)],
      [1, flat(EXIT)],
      [1, flat(SPIN)],
    ]),
    ...signalOf(choices),
  };
}

/** A call of a machine that is there, by name; what it takes is chosen by `begin`. */
const onVm =
  (name, begin, options = {}) =>
  (world, choices) => {
    const vm = world.vm(choices);
    if (vm === undefined) return ACTION.create(world, choices);
    const started = begin(vm, choices, world);
    return world.call(`${world.nameOf(vm)}.${name}`, started, options);
  };

const onSnapshot = (begin) => (world, choices) => {
  if (world.snapshots.length === 0) return ACTION.freeze(world, choices);
  return begin(world, choices, choices.of(world.snapshots));
};

const direct = { mayThrow: true };

async function keepAll(world, forks) {
  for (const fork of (await forks) ?? []) {
    if (fork instanceof Vm) world.keepMachine(fork);
    else if (fork.status === 'fulfilled') world.keepMachine(fork.value);
  }
}

function forkOptions(choices) {
  return choices.weighted([
    [6, undefined],
    [3, 2],
    [3, { count: 2, settle: choices.once(2), ...identityOf(choices), ...signalOf(choices) }],
    [1, { count: -1 }],
    [1, 0],
  ]);
}

const ACTION = {
  async create(world, choices) {
    const options = machineOptions(choices);
    world.keepMachine(await world.call('Vm.create()', () => Vm.create(options)));
  },
  start: onVm('start()', (vm) => () => vm.start()),
  pause: onVm('pause()', (vm) => () => vm.pause()),
  resume: onVm('resume()', (vm) => () => vm.resume()),
  kill: onVm('kill()', (vm) => () => vm.kill()),
  close: onVm('close()', (vm) => () => vm.close()),
  wait: onVm('wait()', (vm) => () => vm.wait()),
  loadState: onVm('saveState(), loadState()', (vm) => async () => {
    const state = await vm.saveState();
    await turn();
    await vm.loadState(state);
  }),
  registers: onVm('setRegs(getRegs())', (vm) => async () => {
    const vcpu = vm.vcpus[0];
    await vcpu.setRegs(await vcpu.getRegs());
  }),
  run: onVm('run()', (vm, choices) => {
    const [dispatch, step] = [choices.once(2), choices.once(2)];
    return () => (step ? vm.vcpus[0].step({ dispatch }) : vm.vcpus[0].run({ dispatch }));
  }),
  look: onVm(
    'status, describe(), read()',
    (vm, choices) => {
      const length = choices.of([1, 4096, MEMORY, MEMORY + 1]);
      return () => [
        vm.status,
        vm.paging,
        vm.describe(),
        vm.generationId,
        vm.memory.read(0n, length),
      ];
    },
    direct,
  ),
  write: onVm(
    'write()',
    (vm, choices) => {
      const [at, bytes] = [BigInt(choices.below(MEMORY)), new Uint8Array(choices.below(9000))];
      return () => vm.memory.write(at, bytes);
    },
    direct,
  ),
  slots: onVm('addSlot(), removeSlot()', (vm) => async () => {
    await vm.memory.addSlot({ slot: 9, gpa: 0x40000000n, size: MiB(1) });
    await vm.memory.removeSlot(9);
  }),
  flags: onVm('setSlotFlags(), getDirtyLog()', (vm) => async () => {
    await vm.memory.setSlotFlags(0, { logDirtyPages: true });
    await vm.memory.getDirtyLog(0);
    await vm.memory.setSlotFlags(0, {});
  }),
  irq: onVm('setIrqLine()', (vm) => () => vm.setIrqLine(4, true), direct),
  input: onVm('console.write()', (vm, choices) => {
    const bytes = Buffer.alloc(choices.below(100), 0x61);
    return () =>
      new Promise((resolve, reject) => {
        vm.console.write(bytes, (error) => (error ? reject(error) : resolve()));
      });
  }),
  output: onVm('output, to its end', (vm, choices) => {
    const name = choices.of(['console', 'debug']);
    return async () => {
      const stream = vm[name].setMaxListeners(0).resume();
      if (!stream.readableEnded) await new Promise((resolve) => stream.once('end', resolve));
    };
  }),
  claim: onVm(
    'claimPorts()',
    (vm, choices) => {
      const read = answering(choices, () => 1, 'wrong');
      const releasedAfter = choices.below(12);
      return () => {
        const claim = vm.claimPorts({ base: CLAIMED, read });
        if (releasedAfter < 6) setTimeout(() => claim.release(), releasedAfter);
      };
    },
    direct,
  ),
  mmio: onVm(
    'claimMmio()',
    (vm) => () => void vm.claimMmio({ base: 0x50000000n, length: 4096, read: () => 1n }),
    direct,
  ),
  dirty: onVm('dirty()', (vm, choices) => {
    const options = {
      tracker: choices.of(TRACKERS),
      every: choices.below(3),
      ...signalOf(choices),
    };
    const epochs = choices.of([1, 2, 5, Infinity]);
    return async () => {
      let seen = 0;
      for await (const _ of vm.dirty(options)) if (++seen >= epochs) break;
    };
  }),
  pageIn: onVm('pageIn()', (vm, choices) => {
    const range = choices.once(2) ? { gpa: BigInt(choices.below(MEMORY)), length: 4096 } : {};
    const signal = signalOf(choices);
    return () => vm.pageIn({ ...range, ...signal });
  }),
  workingSet: onVm('workingSet()', (vm) => () => vm.workingSet(), direct),
  freeze: onVm('snapshot()', (vm, choices, world) => {
    const then = choices.of(['resume', 'pause']);
    return async () => world.keepSnapshot(await vm.snapshot({ then }));
  }),
  save: onVm(
    'snapshot({ store })',
    (vm, choices, world) => {
      const parents = world.snapshots.filter((each) => each instanceof Snapshot);
      const parent = choices.once(2) && parents.length > 0 ? { parent: choices.of(parents) } : {};
      const options = {
        store: world.store,
        then: choices.of(['resume', 'resume', 'pause', 'stop']),
        ...parent,
        ...signalOf(choices),
        ...(choices.once(8) ? { onProgress: fail } : {}),
      };
      return async () => world.keepSnapshot(await vm.snapshot(options));
    },
    { may: onPurpose },
  ),
  fork: onVm('fork()', (vm, choices, world) => {
    const options = forkOptions(choices);
    return () => keepAll(world, vm.fork(options));
  }),
  forget: onVm('fork(), forgotten', (vm, _choices, world) => async () => {
    await vm.fork();
    world.forgets = true;
  }),
  back: onVm('reset()', (vm) => () => vm.reset()),
  reset: onSnapshot((world, choices, snapshot) => {
    const vm = world.vm(choices);
    if (vm === undefined) return ACTION.restore(world, choices);
    const options = identityOf(choices);
    const name = `${world.nameOf(vm)}.reset(${world.nameOf(snapshot)})`;
    return world.call(name, () => vm.reset(snapshot, options));
  }),
  restore: onSnapshot(async (world, choices, snapshot) => {
    const options = identityOf(choices);
    const name = `${world.nameOf(snapshot)}.restore()`;
    world.keepMachine(await world.call(name, () => snapshot.restore(options)));
  }),
  onDemand: onSnapshot(async (world, choices, snapshot) => {
    if (!(snapshot instanceof Snapshot)) return ACTION.save(world, choices);
    // Nothing but its signal ends a restore whose source never answers.
    const signals = [world.ended, ...Object.values(signalOf(choices))];
    const options = { paging: pagingOf(choices), signal: AbortSignal.any(signals) };
    const name = `${world.nameOf(snapshot)}.restore({ paging })`;
    world.keepMachine(await world.call(name, () => snapshot.restore(options)));
  }),
  forkOfSnapshot: onSnapshot((world, choices, snapshot) => {
    const options = forkOptions(choices);
    const name = `${world.nameOf(snapshot)}.fork()`;
    return world.call(name, () => keepAll(world, snapshot.fork(options)));
  }),
  closeSnapshot: onSnapshot((world, _choices, snapshot) =>
    world.call(`${world.nameOf(snapshot)}.close()`, () => snapshot.close(), direct),
  ),
  flatten: onSnapshot(async (world, choices, snapshot) => {
    if (!(snapshot instanceof Snapshot)) return ACTION.save(world, choices);
    const options = signalOf(choices);
    const name = `${world.nameOf(snapshot)}.flatten()`;
    world.keepSnapshot(await world.call(name, () => snapshot.flatten(options)));
  }),
  verify: onSnapshot((world, choices, snapshot) => {
    if (!(snapshot instanceof Snapshot)) return ACTION.save(world, choices);
    const options = signalOf(choices);
    return world.call(`${world.nameOf(snapshot)}.verify()`, () => snapshot.verify(options));
  }),
  remove: onSnapshot((world, choices, snapshot) => {
    if (!(snapshot instanceof Snapshot)) return ACTION.save(world, choices);
    return world.call(`delete(${world.nameOf(snapshot)}), gc()`, async () => {
      await world.store.delete(snapshot.digest);
      await world.store.gc({ graceMs: -1000 });
    });
  }),
  pool: onSnapshot(async (world, choices, snapshot) => {
    const size = choices.below(3);
    const options = { size, max: Math.max(size, 1 + choices.below(3)) };
    const name = `Pool.create(${world.nameOf(snapshot)})`;
    world.keepPool(await world.call(name, () => Pool.create(snapshot, options)));
  }),
  async get(world, choices) {
    if (world.pools.length === 0) return ACTION.pool(world, choices);
    const pool = choices.of(world.pools);
    // More than there may be: some have to wait.
    const gets = Array.from({ length: 1 + choices.below(3) }, async () => {
      const options = { ...signalOf(choices), ...identityOf(choices) };
      world.keepMachine(await world.call(`${world.nameOf(pool)}.get()`, () => pool.get(options)));
    });
    await Promise.all(gets);
  },
  closePool(world, choices) {
    if (world.pools.length === 0) return ACTION.pool(world, choices);
    const pool = choices.of(world.pools);
    return world.call(`${world.nameOf(pool)}.close()`, () => pool.close());
  },
};

const ACTIONS = [
  [6, 'create'],
  [10, 'start'],
  [6, 'pause'],
  [3, 'resume'],
  [3, 'kill'],
  [5, 'close'],
  [3, 'wait'],
  [2, 'loadState'],
  [2, 'registers'],
  [2, 'run'],
  [3, 'look'],
  [3, 'write'],
  [1, 'slots'],
  [1, 'flags'],
  [1, 'irq'],
  [2, 'input'],
  [2, 'output'],
  [4, 'claim'],
  [1, 'mmio'],
  [5, 'dirty'],
  [4, 'pageIn'],
  [1, 'workingSet'],
  [6, 'freeze'],
  [6, 'save'],
  [8, 'fork'],
  [1, 'forget'],
  [6, 'reset'],
  [4, 'back'],
  [4, 'restore'],
  [6, 'onDemand'],
  [3, 'forkOfSnapshot'],
  [3, 'closeSnapshot'],
  [1, 'flatten'],
  [1, 'verify'],
  [1, 'remove'],
  [3, 'pool'],
  [8, 'get'],
  [2, 'closePool'],
];
