/** What the addon tells of a machine, and who hears it. */
import type { NativeStop } from '../native/binding.js';
import type { Claims } from './claims.js';
import type { OutputGate } from './output.js';
import type { PageServer } from './paging.js';
import { Stops } from './stops.js';
import type { VcpuExit } from './vcpu.js';

interface Hearer {
  readonly output: readonly [OutputGate, OutputGate];
  readonly claims: Claims;
}

/** Holds the machine weakly in no way: the two are collected together. */
export class MachineEvents {
  vm: Hearer | undefined;
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
    this.vm?.output[stream].take(bytes);
  }

  exit(vcpu: number, question: number, claim: number, exit: VcpuExit): void {
    void this.vm?.claims.handle(vcpu, question, claim, exit);
  }
}
