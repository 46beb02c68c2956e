export function qemuArguments(options: {
  accel: 'kvm' | 'tcg';
  firmware: string;
  memoryMiB: number;
  sockets: { monitor: string; serial: string };
  ram?: { path: string; share: boolean };
  disk?: string;
  wait?: 'paused' | 'incoming';
}): string[];
