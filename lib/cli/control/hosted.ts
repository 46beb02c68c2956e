/** A machine as its host process offers it to clients, whoever and however many they are. */
import { finished } from 'node:stream/promises';
import { heatMap } from '../../dirty/analysis.js';
import type { DirtyEpoch } from '../../dirty/epoch.js';
import { Snapshot, SnapshotStore, type Vm } from '../../index.js';
import { describeStop, type Stop } from '../stop.js';
import {
  type EpochSummary,
  type MachineInfo,
  PROTOCOL_VERSION,
  type Request,
  type SnapshotResult,
} from './protocol.js';

/** What a new client sees of the output before it came. */
const BACKLOG_BYTES = 256 * 1024;
/** Stretches of memory in an epoch's heat. */
const HEAT_COLUMNS = 64;

/** So many snapshots that it took are known, and can be named as parents. */
const TAKEN = 64;

/** A client that watches the console. */
export interface Watcher {
  /** False: it has enough for now, and calls `drained` later. */
  output(bytes: Buffer): boolean;
}

export class HostedMachine {
  readonly name: string;
  readonly vm: Vm;
  /** Resolves once, when the machine is gone and all of its output was handed out. */
  readonly ended: Promise<Stop>;
  readonly #guest: string;
  readonly #started = new Date();
  readonly #watchers = new Set<Watcher>();
  readonly #slow = new Set<Watcher>();
  /** By store and digest, oldest first. */
  readonly #taken = new Map<string, Snapshot>();
  #backlog: Buffer[] = [];
  #backlogBytes = 0;
  #tracking: { signal: AbortSignal; over: Promise<void> } | undefined;
  #closeAs: (stop: Stop) => void = () => {};

  constructor(name: string, guest: string, vm: Vm) {
    this.name = name;
    this.vm = vm;
    this.#guest = guest;
    vm.console.on('data', (bytes: Buffer) => this.#take(bytes));
    const closed = new Promise<Stop>((resolve) => {
      this.#closeAs = resolve;
    });
    this.ended = this.#end(closed);
  }

  info(): MachineInfo {
    const { vcpus, memory } = this.vm.describe();
    return {
      protocol: PROTOCOL_VERSION,
      name: this.name,
      pid: process.pid,
      status: this.vm.status,
      started: this.#started.toISOString(),
      vcpus,
      memory: memory.regions.reduce((sum, { size }) => sum + size, 0),
      guest: this.#guest,
    };
  }

  watch(watcher: Watcher): void {
    for (const bytes of this.#backlog) watcher.output(bytes);
    this.#watchers.add(watcher);
  }

  unwatch(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    this.drained(watcher);
  }

  /** A watcher takes output again. The guest waits for the slowest. */
  drained(watcher: Watcher): void {
    this.#slow.delete(watcher);
    if (this.#slow.size === 0) this.vm.console.resume();
  }

  input(bytes: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      this.vm.console.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }

  async snapshot(
    request: Extract<Request, { op: 'snapshot' }>,
    onProgress: (done: number, total: number) => void,
    signal: AbortSignal,
  ): Promise<SnapshotResult> {
    const { store, tag, annotations } = request;
    using parent =
      request.parent === undefined ? undefined : await this.#parent(store, request.parent);
    using snapshot = await this.vm.snapshot({
      store,
      ...(tag === undefined ? {} : { tag }),
      ...(parent === undefined ? {} : { parent }),
      ...(annotations === undefined ? {} : { annotations }),
      then: request.then === 'resume' ? 'resume' : 'pause',
      onProgress,
      signal,
    });
    this.#taken.set(`${store} ${snapshot.digest}`, snapshot);
    for (const oldest of this.#taken.keys()) {
      if (this.#taken.size > TAKEN) this.#taken.delete(oldest);
    }
    if (request.then === 'stop') this.close();
    const { pauseMs, writeMs, bytes, pages } = snapshot.stats as NonNullable<typeof snapshot.stats>;
    return {
      digest: snapshot.digest,
      ...(tag === undefined ? {} : { tag }),
      pauseMs,
      writeMs,
      bytes,
      pages,
    };
  }

  /** What one harvest after the other finds. */
  async *dirty(
    { tracker, every }: Pick<Extract<Request, { op: 'dirty' }>, 'tracker' | 'every'>,
    signal: AbortSignal,
  ): AsyncGenerator<EpochSummary> {
    // A client that has left is no reason to refuse the next: its tracking is about to end.
    if (this.#tracking?.signal.aborted) await this.#tracking.over;
    let end: () => void = () => {};
    const tracking = {
      signal,
      over: new Promise<void>((resolve) => {
        end = resolve;
      }),
    };
    this.#tracking ??= tracking;
    try {
      for await (const epoch of this.vm.dirty({ tracker, every, signal })) yield summaryOf(epoch);
    } finally {
      if (this.#tracking === tracking) this.#tracking = undefined;
      end();
    }
  }

  async #parent(path: string, ref: string): Promise<Snapshot> {
    const store = await SnapshotStore.open(path);
    const digest = await store.resolve(ref);
    return this.#taken.get(`${path} ${digest}`) ?? (await Snapshot.open(store, digest));
  }

  /** Ends the machine at an instruction boundary; with `kill`, without waiting for one. */
  async stop(kill: boolean): Promise<void> {
    if (!kill && this.vm.status === 'running') await this.vm.pause();
    this.#closeAs({ reason: kill ? 'killed' : 'closed' });
  }

  close(): void {
    this.#closeAs({ reason: 'closed' });
  }

  async #end(closed: Promise<Stop>): Promise<Stop> {
    const stop = await Promise.race([closed, this.vm.wait().then(describeStop)]);
    // The last output waits for slow watchers no longer than they are given to take it.
    const drained = finished(this.vm.console, { writable: false });
    await this.vm.close();
    await drained.catch(() => undefined);
    return stop;
  }

  #take(bytes: Buffer): void {
    this.#keep(bytes);
    for (const watcher of this.#watchers) {
      if (!watcher.output(bytes)) this.#slow.add(watcher);
    }
    if (this.#slow.size > 0) this.vm.console.pause();
  }

  #keep(bytes: Buffer): void {
    this.#backlog.push(bytes);
    this.#backlogBytes += bytes.length;
    while (this.#backlogBytes - (this.#backlog[0]?.length ?? 0) >= BACKLOG_BYTES) {
      this.#backlogBytes -= this.#backlog.shift()?.length ?? 0;
    }
  }
}

function summaryOf(epoch: DirtyEpoch): EpochSummary {
  const { columns, rows } = heatMap([epoch], HEAT_COLUMNS);
  return {
    at: epoch.at,
    pages: epoch.count,
    harvestUs: epoch.harvestUs,
    lostUs: epoch.lostUs,
    slots: epoch.slots.map(({ slot, gpa, size, count }) => ({
      slot,
      gpa: `0x${gpa.toString(16)}`,
      size,
      pages: count,
    })),
    heat: columns.map(({ pages }, i) => (rows[0]?.[i] ?? 0) / pages),
  };
}
