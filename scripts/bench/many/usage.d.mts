export function pssKiB(rollup?: string): number;
export function counts(): { fds: number; threads: number; maps: number };
export function freeDescriptors(limits?: string): number;
