/** Machines and snapshots that come from one machine, and the steps that change them. */
import { expect } from 'vitest';
import {
  type MemorySnapshot,
  Pool,
  type RestoreOptions,
  Snapshot,
  type SnapshotStore,
  type Vm,
} from '../../../lib/index.js';
import { codeOf } from './code-of.js';
import { type Instant, type Kind, ModelMachine, workAreas } from './machine.js';
import type { Sequence, Step } from './steps.js';

/** Of either there are not more: the oldest goes. */
const MOST = 8;

interface InMemory {
  handle: MemorySnapshot;
  instant: Instant;
  stored: false;
}

interface Stored {
  handle: Snapshot;
  instant: Instant;
  stored: true;
  /** The snapshots that it was taken against, nearest first. */
  chain: Stored[];
}

type ModelSnapshot = InMemory | Stored;

export class World {
  readonly #kind: Kind;
  readonly #store: SnapshotStore;
  #machines: ModelMachine[] = [];
  #snapshots: ModelSnapshot[] = [];
  #pools = new Map<ModelSnapshot, Pool>();
  /** Steps that were done, of those that had something to be done to. */
  done = 0;

  constructor(kind: Kind, store: SnapshotStore) {
    this.#kind = kind;
    this.#store = store;
  }

  async run({ steps }: Sequence): Promise<void> {
    try {
      this.#machines.push(await ModelMachine.create(this.#kind));
      for (const step of steps) await this.#do(step);
      await this.#checkAll();
    } finally {
      await this.#close();
    }
  }

  async #do(step: Step): Promise<void> {
    const machine = 'machine' in step ? pickOf(this.#machines, step.machine) : undefined;
    const snapshot = 'snapshot' in step ? pickOf(this.#snapshots, step.snapshot) : undefined;
    if ('machine' in step && machine === undefined) return;
    if ('snapshot' in step && snapshot === undefined) return;
    this.done++;
    if (machine !== undefined) await this.#doTo(machine, step, snapshot);
    else if (snapshot !== undefined) await this.#doWith(snapshot, step);
  }

  async #doTo(machine: ModelMachine, step: Step, snapshot?: ModelSnapshot): Promise<void> {
    const { vm, poisoned, running } = machine;
    switch (step.step) {
      case 'job': {
        if (poisoned) return expectPoisoned(vm.resume());
        const { vcpu, stride, seed, alone } = step;
        const { gpa, size } = pickOf(workAreas(this.#kind), step.area)!;
        const base = gpa + (step.at - (step.at % 8));
        const count = Math.min(step.count, Math.floor((gpa + size - 8 - base) / stride) + 1);
        return machine.job({ vcpu: vcpu % this.#kind.vcpus, base, stride, count, seed }, alone);
      }
      case 'write': {
        const { gpa, size } = pickOf(workAreas(this.#kind), step.area)!;
        const length = Math.min(step.length, size - step.at);
        return machine.write(gpa + step.at, contents(step.value, length));
      }
      case 'registers':
        if (poisoned || running) return;
        return machine.setRegisters(step.vcpu % this.#kind.vcpus, step.value);
      case 'type':
        return machine.type(step.byte);
      case 'start':
        if (poisoned) return expectPoisoned(vm.start());
        await vm.start().catch((error) => {
          if (!running || error.code !== 'ERR_STATE') throw error;
        });
        machine.running = true;
        return;
      case 'pause':
        if (poisoned) return expectPoisoned(vm.pause());
        if (vm.status !== 'created') await vm.pause();
        machine.running = false;
        return;
      case 'kill':
        return machine.kill();
      case 'close':
        return this.#closeMachine(machine);
      case 'freeze':
        return this.#freeze(machine, step.pause ? 'pause' : 'resume');
      case 'save':
        return this.#save(machine, step.pause ? 'pause' : 'resume');
      case 'increment':
        return this.#save(
          machine,
          step.pause ? 'pause' : 'resume',
          pickOf(this.#stored(), step.parent),
        );
      case 'fork': {
        if (poisoned) return expectPoisoned(vm.fork());
        const instant = machine.now();
        for (const fork of await vm.fork(step.count)) {
          await this.#add(ModelMachine.from(fork, this.#kind, instant));
        }
        return;
      }
      case 'reset': {
        const { handle, instant } = snapshot!;
        await machine.reset(instant, () => vm.reset(handle));
        machine.origin = instant;
        return;
      }
      case 'back':
        if (machine.origin) return machine.reset(machine.origin, () => vm.reset());
        expect(await codeOf(vm.reset())).toBe('ERR_STATE');
        return;
      case 'track':
        return machine.track(step.tracker);
      case 'harvest':
        return machine.harvest();
      case 'untrack':
        return machine.untrack();
      case 'check':
        return machine.check('in between');
      default:
        throw new Error(`${step.step} is done to no machine`);
    }
  }

  async #doWith(snapshot: ModelSnapshot, step: Step): Promise<void> {
    switch (step.step) {
      case 'restore': {
        const vm = await this.#restored(snapshot, step.byFork);
        return this.#add(ModelMachine.from(vm, this.#kind, snapshot.instant));
      }
      case 'pool':
        return this.#fromPool(snapshot);
      case 'merge':
        if (snapshot.stored) return this.#merge(snapshot, step.ancestor);
        return;
      case 'reopen':
        if (snapshot.stored) return this.#reopen(snapshot);
        return;
      case 'delete':
        return this.#delete(snapshot, step.collect);
      default:
        throw new Error(`${step.step} is done with no snapshot`);
    }
  }

  async #freeze(machine: ModelMachine, then: 'pause' | 'resume'): Promise<void> {
    if (machine.poisoned) return expectPoisoned(machine.vm.snapshot({ then }));
    const handle = await machine.vm.snapshot({ then });
    if (then === 'pause') machine.running = false;
    await this.#keep({ handle, instant: machine.now(), stored: false });
  }

  async #save(machine: ModelMachine, then: 'pause' | 'resume', parent?: Stored): Promise<void> {
    const saving = machine.vm.snapshot({
      store: this.#store,
      then,
      ...(parent ? { parent: parent.handle } : {}),
    });
    if (machine.poisoned) return expectPoisoned(saving);
    const handle = await saving.catch((error) => {
      const mayBe = parent !== undefined && !machine.instant.parents.has(parent);
      if (!mayBe || !/take a full snapshot/.test(error.message)) throw error;
    });
    if (then === 'pause') machine.running = false;
    if (handle === undefined) return;
    const chain = parent ? [parent, ...parent.chain] : [];
    const snapshot: Stored = { handle, instant: machine.now(), stored: true, chain };
    machine.instant.parents = new Set([...machine.instant.parents, snapshot]);
    snapshot.instant = {
      ...snapshot.instant,
      files: true,
      // Its files, and those that it shares with others.
      parents: new Set([snapshot, ...chain]),
    };
    await this.#keep(snapshot);
  }

  async #restored(snapshot: ModelSnapshot, byFork: boolean): Promise<Vm> {
    if (!snapshot.stored || (byFork && !this.#kind.ring)) return (await snapshot.handle.fork())[0]!;
    const options: RestoreOptions = this.#kind.ring ? { dirtyRing: 1024 } : {};
    return snapshot.handle.restore(options);
  }

  async #fromPool(snapshot: ModelSnapshot): Promise<void> {
    // Pools make the usual machine of a snapshot in a store.
    if (snapshot.stored && this.#kind.ring) return;
    let pool = this.#pools.get(snapshot);
    if (pool === undefined) {
      pool = await Pool.create(snapshot.handle, { size: 1, max: MOST });
      this.#pools.set(snapshot, pool);
    }
    const machine = ModelMachine.from(await pool.get(), this.#kind, snapshot.instant);
    await this.#add(machine);
  }

  async #merge(snapshot: Stored, ancestor: number): Promise<void> {
    const there = snapshot.chain.filter((each) => this.#snapshots.includes(each));
    const parent = pickOf([undefined, ...there], ancestor);
    const handle = await snapshot.handle.flatten(parent ? { parent: parent.handle } : {});
    const chain = parent ? [parent, ...parent.chain] : [];
    const merged: Stored = { handle, instant: snapshot.instant, stored: true, chain };
    merged.instant = { ...snapshot.instant, parents: new Set([merged, ...chain]) };
    await this.#keep(merged);
  }

  /** As another process would, which does not know what memory it was saved from. */
  async #reopen(snapshot: Stored): Promise<void> {
    const handle = await Snapshot.open(this.#store, snapshot.handle.digest);
    snapshot.handle.close();
    snapshot.handle = handle;
    const instants = [...this.#machines, ...this.#snapshots].map(({ instant }) => instant);
    for (const instant of instants) {
      if (instant.files && instant.parents.has(snapshot)) continue;
      instant.parents = new Set([...instant.parents].filter((each) => each !== snapshot));
    }
  }

  /** Its children and machines stay whole. */
  async #delete(snapshot: ModelSnapshot, collect: boolean): Promise<void> {
    const gone = snapshot.stored
      ? this.#stored().filter(({ handle }) => handle.digest === snapshot.handle.digest)
      : [snapshot];
    this.#snapshots = this.#snapshots.filter((each) => !gone.includes(each as never));
    for (const { handle } of gone) handle.close();
    if (!snapshot.stored) return;
    await this.#store.delete(snapshot.handle.digest);
    if (collect) await this.#store.gc({ graceMs: -1000 });
  }

  async #keep(snapshot: ModelSnapshot): Promise<void> {
    this.#snapshots.push(snapshot);
    if (this.#snapshots.length > MOST) await this.#delete(this.#snapshots[0]!, false);
  }

  async #add(machine: ModelMachine): Promise<void> {
    this.#machines.push(machine);
    if (this.#machines.length > MOST) await this.#closeMachine(this.#machines[0]!);
  }

  /** A pool gets its machine back, and hands it out again. */
  async #closeMachine(machine: ModelMachine): Promise<void> {
    this.#machines = this.#machines.filter((each) => each !== machine);
    await machine.vm.close();
    await machine.untrack();
  }

  #stored(): Stored[] {
    return this.#snapshots.filter((snapshot) => snapshot.stored);
  }

  async #checkAll(): Promise<void> {
    for (const [i, machine] of this.#machines.entries()) {
      await machine.harvest();
      await machine.check(`machine ${i} at the end`);
    }
    for (const [i, snapshot] of this.#snapshots.entries()) {
      await using vm = await this.#restored(snapshot, false);
      await ModelMachine.from(vm, this.#kind, snapshot.instant).check(`snapshot ${i} at the end`);
    }
    if (this.#stored().length > 0) {
      for (const { handle } of this.#stored()) await handle.verify();
    }
  }

  async #close(): Promise<void> {
    const pools = [...this.#pools.values()].map((pool) => pool.close());
    for (const machine of this.#machines) await this.#closeMachine(machine);
    for (const { handle } of this.#snapshots) handle.close();
    await Promise.all(pools);
  }
}

const pickOf = <T>(from: readonly T[], number: number): T | undefined => from[number % from.length];

function contents(value: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  if (value !== 0) for (let i = 0; i < length; i++) bytes[i] = value * 31 + i * 7;
  return bytes;
}

async function expectPoisoned(call: Promise<unknown>): Promise<void> {
  expect(await codeOf(call)).toBe('ERR_POISONED');
}
