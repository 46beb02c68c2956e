/** What the addon tells of a machine, and who hears it. */
import type { NativeStop } from '../native/binding.js';
import type { Claims } from './claims.js';
import type { PageServer } from './paging.js';
import { Stops } from './stops.js';
import type { Streams } from './streams.js';
import type { VcpuExit } from './vcpu.js';

interface Hearer {
  /** Not called: it is forgotten no sooner than the native machine, which runs on by itself. */
  readonly vm: object;
  readonly streams: Streams;
  readonly claims: Claims;
}

/** Holds the machine weakly in no way: the two are collected together. */
export class MachineEvents {
  hearer: Hearer | undefined;
  readonly stops = new Stops();
  pageServer: PageServer | undefined;

  stopped(stop: NativeStop, life: number): void {
    this.stops.stopped(this.pageServer?.told(stop) ?? stop, life);
  }

  pages(id: number, gpa: bigint, length: number): void {
    this.pageServer?.pages(id, gpa, length);
  }

  pagingEnded(): void {
    this.pageServer?.ended();
  }

  output(stream: 0 | 1, bytes: Uint8Array): void {
    this.hearer?.streams.take(stream, bytes);
  }

  exit(vcpu: number, question: number, claim: number, exit: VcpuExit): void {
    void this.hearer?.claims.handle(vcpu, question, claim, exit);
  }
}
