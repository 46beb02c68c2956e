export const SIZES_ALLOWED: string;
export function parseSize(text: string): number | undefined;
export function formatSize(mib: number): string;
export function neededMiB(mib: number): number;
export function availableMiB(meminfo?: string): number;
